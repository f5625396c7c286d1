"""The reference plug-ins: one method a file, registered exactly as a stranger's would be.

Factories are named as `module:attribute`, so that nothing is imported before a suite asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grbench import hookimpl

if TYPE_CHECKING:
    import click

    from grbench.hookspecs import Register


@hookimpl
def register_datasets(register: Register) -> None:
    register("tencentgr", "grbench_reference.datasets.tencentgr.dataset:TencentGR")
    register("tencentgr_synthetic", "grbench_reference.datasets.synthetic.dataset:TencentGRSynthetic")
    register("interactions", "grbench_reference.datasets.interactions.dataset:Interactions")


@hookimpl
def register_protocols(register: Register) -> None:
    register("last_positive", "grbench_reference.protocols.last_positive:LastPositive")
    register("leave_last_out", "grbench_reference.protocols.leave_last_out:LeaveLastOut")


@hookimpl
def register_tokenizers(register: Register) -> None:
    register("ids", "grbench_reference.tokenizers.ids:Ids")
    register("rq_kmeans", "grbench_reference.tokenizers.rq_kmeans:RQKMeans")
    register("rq_vae", "grbench_reference.tokenizers.rq_vae:RQVAE")
    register("uni_sid", "grbench_reference.tokenizers.uni_sid:UniSID")
    register("codes_file", "grbench_reference.tokenizers.codes_file:CodesFile")


@hookimpl
def register_encoders(register: Register) -> None:
    register("causal_transformer", "grbench_reference.encoders.causal_transformer:CausalTransformer")
    register("hstu", "grbench_reference.encoders.hstu:HSTU")
    register("prism", "grbench_reference.encoders.prism:Prism")
    register("preference_memory", "grbench_reference.encoders.preference_memory:PreferenceMemory")
    register("sid_decoder", "grbench_reference.encoders.sid_decoder:SIDDecoder")
    register("lazy_decoder", "grbench_reference.encoders.lazy_decoder:LazyDecoder")
    register("diffu_reason", "grbench_reference.encoders.diffu_reason:DiffuReason")
    register("one_ranker", "grbench_reference.encoders.one_ranker:OneRanker")
    register("gnn", "grbench_reference.encoders.gnn:GNN")
    register("lightgcn", "grbench_reference.encoders.lightgcn:LightGCN")
    register("most_popular", "grbench_reference.encoders.most_popular:MostPopular")


@hookimpl
def register_losses(register: Register) -> None:
    register("infonce", "grbench_reference.losses.infonce:InfoNCE")
    register("full_softmax", "grbench_reference.losses.full_softmax:FullSoftmax")
    register("bce", "grbench_reference.losses.bce:BCE")
    register("bpr", "grbench_reference.losses.bpr:BPR")
    register("next_code", "grbench_reference.losses.next_code:NextCode")
    register("task_prediction", "grbench_reference.losses.task_prediction:TaskPrediction")
    register("value_ranking", "grbench_reference.losses.value_ranking:ValueRanking")
    register("next_action", "grbench_reference.losses.next_action:NextAction")
    register("path_verification", "grbench_reference.losses.path_verification:PathVerification")
    register("path_value", "grbench_reference.losses.path_value:PathValue")
    register("denoising", "grbench_reference.losses.denoising:Denoising")


@hookimpl
def register_trainers(register: Register) -> None:
    register("supervised", "grbench_reference.trainers.supervised:Supervised")
    register("grpo", "grbench_reference.trainers.grpo:GRPO")
    register("diffuse", "grbench_reference.trainers.diffuse:Diffuse")


@hookimpl
def register_retrievers(register: Register) -> None:
    register("exact", "grbench_reference.retrievers.exact:Exact")
    register("faiss", "grbench_reference.retrievers.faiss:FaissIndex")
    register("beam", "grbench_reference.retrievers.beam:Beam")
    register("beam_rerank", "grbench_reference.retrievers.beam_rerank:BeamRerank")
    register("retrieve_rank", "grbench_reference.retrievers.retrieve_rank:RetrieveRank")


@hookimpl
def register_metrics(register: Register) -> None:
    register("hit_rate", "grbench_reference.metrics.hit_rate:HitRate")
    register("ndcg", "grbench_reference.metrics.ndcg:NDCG")
    register("weighted_hit_rate", "grbench_reference.metrics.weighted_hit_rate:WeightedHitRate")
    register("weighted_ndcg", "grbench_reference.metrics.weighted_ndcg:WeightedNDCG")
    register("score", "grbench_reference.metrics.score:Score")
    register("mrr", "grbench_reference.metrics.mrr:MRR")
    register("coverage", "grbench_reference.metrics.coverage:Coverage")
    register("gini", "grbench_reference.metrics.gini:Gini")
    register("novelty", "grbench_reference.metrics.novelty:Novelty")
    register("diversity", "grbench_reference.metrics.diversity:Diversity")


@hookimpl
def register_slices(register: Register) -> None:
    register("history_length", "grbench_reference.slices.history_length:HistoryLength")
    register("popularity", "grbench_reference.slices.popularity:TargetPopularity")
    register("action", "grbench_reference.slices.action:TargetAction")
    register("repeat", "grbench_reference.slices.repeat:Repeat")
    register("gap", "grbench_reference.slices.gap:Gap")


@hookimpl
def register_optimizers(register: Register) -> None:
    register("adam", "grbench_reference.optimizers.adam:adam")
    register("adamw", "grbench_reference.optimizers.adam:adamw")
    register("muon", "grbench_reference.optimizers.muon:muon")


@hookimpl
def register_trackers(register: Register) -> None:
    register("jsonl", "grbench_reference.trackers.jsonl:JsonLines")
    register("item_vectors", "grbench_reference.trackers.item_vectors:ItemVectors")
    register("tensorboard", "grbench_reference.trackers.tensorboard:TensorBoard")
    register("mlflow", "grbench_reference.trackers.mlflow:MLflow")
    register("wandb", "grbench_reference.trackers.wandb:WandB")
    register("trackio", "grbench_reference.trackers.trackio:Trackio")


@hookimpl
def register_commands(cli: click.Group) -> None:
    from grbench_reference.commands.codes import add_inspect_command
    from grbench_reference.commands.data import add_commands

    add_commands(cli)
    add_inspect_command(cli)
