"""Recommendation by a causal language model, as a package of plug-ins: a dataset with titles, a tokenizer whose codes
are an item's words, and an encoder that is prompted with the titles of a history and writes the next one.

    pip install ./examples/language_model
    grbench check language-model
    grbench run examples/language_model/suite.yaml
"""

from grbench import hookimpl


@hookimpl
def register_datasets(register):
    register("titled_shop", "language_model.titled_shop:TitledShop")


@hookimpl
def register_tokenizers(register):
    register("title_words", "language_model.title_words:TitleWords")


@hookimpl
def register_encoders(register):
    register("causal_language_model", "language_model.causal_language_model:CausalLanguageModel")
