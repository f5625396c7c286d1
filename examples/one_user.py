"""Look at one user's lists, as two methods rank them: the user for whom the two differ most, or any other.

    python examples/one_user.py [FOLDER A B [USER]]

Beside each record is a parquet file with every evaluated user's list, scores, targets and their ranks, with the ids of
the data's source.
"""

import sys
from pathlib import Path

import pandas as pd

import grbench

METRIC = "metric:ndcg@10"

given = sys.argv[1:] or ["results/sample/amazon_beauty", "transformer_unread", "generative"]
folder, a, b, *user = given


def lists_of(method: str) -> pd.DataFrame:
    """The lists of the method's first seed that tables show, a row a user."""
    results = grbench.load_results(folder)
    done = results[results.shown & (results.method == method)]  # no grid's row that was not chosen on validation
    if done.empty:
        sys.exit(f"{folder}: has no scores of {method} to show; of {', '.join(results[results.shown].method.unique())}")
    cell = done.sort_values("seed").iloc[0]
    return pd.read_parquet(Path(folder) / f"{cell.digest}.parquet").set_index("user")


lists = {a: lists_of(a), b: lists_of(b)}
gain = lists[a][METRIC] - lists[b][METRIC]
better, worse = (gain > 0).sum(), (gain < 0).sum()
print(f"{a} is better for {better:,} users, worse for {worse:,}, of {len(gain):,}")

chosen = int(user[0]) if user else gain.idxmax()
row = lists[a].loc[chosen]
target = row.targets[0]
groups = [f"{name.removeprefix('slice:')} {row[name]}" for name in row.index if "slice:" in name]
print(f"user {chosen}: the next item was {target};", ", ".join(groups))

shown = pd.DataFrame({method: pd.Series(table.loc[chosen, "items"]) for method, table in lists.items()})
marks = dict.fromkeys(set(shown[a]) & set(shown[b]), " (both)") | {target: " <-- target"}
shown = shown.map(lambda item: f"{item}{marks.get(item, '')}")
shown.index = range(1, len(shown) + 1)
print(shown.to_string())
