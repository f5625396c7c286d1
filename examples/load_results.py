"""Load the records of a folder of results into pandas: scores over seeds, what training costs for a point of NDCG, and
what of a cell's time is spent where.

    python examples/load_results.py [FOLDER]
"""

import sys

import grbench

folder = sys.argv[1] if len(sys.argv) > 1 else "results/sample/amazon_beauty"
results = grbench.load_results(folder)
done = results[results.shown]  # not failed cells, nor rows of a grid that were not chosen on validation

scores = done.pivot_table(index="method", columns="metric", values="value", aggfunc="mean")
print(scores.sort_values("ndcg@10", ascending=False).round(4), end="\n\n")

cells = done.drop_duplicates("digest").set_index("method")  # a row a cell; `done` has one a metric
minutes = cells["cost.train_seconds"].groupby("method").mean() / 60
gain = scores["ndcg@10"] - scores.loc["most_popular", "ndcg@10"]
print("training minutes for .01 of NDCG@10 above most_popular")
print((minutes / (100 * gain)).dropna().sort_values().round(2).to_string(), end="\n\n")

seconds = cells.filter(regex=r"^cost\.phases\..*\.seconds$").groupby("method").mean()
seconds.columns = seconds.columns.str.split(".").str[2]
print("share of a cell's time by phase")
print(seconds.div(seconds.sum(axis=1), axis=0).fillna(0).round(3).to_string())
