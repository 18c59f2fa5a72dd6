"""SemEval STS 2013-2016 through a running gateway: does it rank sentence pairs as people do?

    python benchmarks/sts.py --data DIR [--url http://127.0.0.1:8000] [--model NAME]

A wrong tokenizer, pooling or order of vectors shows here at once. The data is not ours to ship.
DIR holds one folder a year with tab-separated files `*.test.tsv`, a line being the people's score
(0 to 5, empty where nobody scored the pair), the first sentence, the second sentence:

    DIR/2013/{FNWN,OnWN,headlines}.test.tsv
    DIR/2014/{OnWN,deft-forum,deft-news,headlines,images,tweet-news}.test.tsv
    DIR/2015/{answers-forums,answers-students,belief,headlines,images}.test.tsv
    DIR/2016/{answer-answer,headlines,plagiarism,postediting,question-question}.test.tsv

The repository brmson/dataset-sts on GitHub has them in this form in `data/sts/semeval-sts`. As in
MTEB, the subsets of a year are put together, and the number is Spearman's rank correlation of
cosine similarities with scores, times 100. Exit status 1 if the bundled model is off by more than
0.05 from its published numbers. This file knows the HTTP API only, nothing of the gateway's code.
"""

import argparse
import base64
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float64]
Embed = Callable[[Sequence[str]], Vectors]
Pair = tuple[float, str, str]

BUNDLED = "all-minilm-l6-v2"
# year -> (pairs, score); scores: MTEB's results for sentence-transformers/all-MiniLM-L6-v2.
PUBLISHED = {
    2013: (1500, 80.60),
    2014: (3750, 75.59),
    2015: (3000, 85.39),
    2016: (1186, 78.99),
}
TOLERANCE = 0.05


def read_year(folder: Path) -> list[Pair]:
    """Return the scored pairs of all subsets of one year; SystemExit if there are none."""
    pairs = []
    for path in sorted(folder.glob("*.test.tsv")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            columns = line.split("\t")
            if len(columns) >= 3 and columns[0].strip():
                pairs.append((float(columns[0]), columns[1].strip(), columns[2].strip()))
    if not pairs:
        raise SystemExit(f"{folder}: no scored pairs in *.test.tsv")
    return pairs


def average_ranks(values: Vectors) -> Vectors:
    """Return the rank of each value from 1 up; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Vectors = (last - (counts - 1) / 2)[inverse]
    return ranks


def spearman(left: Vectors, right: Vectors) -> float:
    """Return Spearman's rho: Pearson's correlation of the average ranks."""
    return float(np.corrcoef(average_ranks(left), average_ranks(right))[0, 1])


def score(pairs: Sequence[Pair], embed: Embed) -> float:
    """Return Spearman's rho, times 100, of cosine similarities with the people's scores."""
    texts = sorted({text for _, *sentences in pairs for text in sentences})
    row = {text: index for index, text in enumerate(texts)}
    vectors = embed(texts)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first = vectors[[row[a] for _, a, _ in pairs]]
    second = vectors[[row[b] for _, _, b in pairs]]
    cosines = np.sum(first * second, axis=1)
    return 100 * spearman(cosines, np.array([rating for rating, _, _ in pairs]))


class Gateway:
    """Embeds texts over HTTP, in batches, a few of them at a time."""

    def __init__(self, url: str, model: str, key: str, batch: int = 64, clients: int = 4) -> None:
        self._url = url.rstrip("/") + "/v1/embeddings"
        self._model = model
        self._key = key
        self._batch = batch
        self._clients = clients

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return one row a text, shape (texts, width), in their order."""
        batches = [texts[i : i + self._batch] for i in range(0, len(texts), self._batch)]
        with ThreadPoolExecutor(self._clients) as clients:
            return np.concatenate(list(clients.map(self._post, batches)))

    def _post(self, texts: Sequence[str]) -> Vectors:
        body = {"model": self._model, "input": list(texts), "encoding_format": "base64"}
        request = urllib.request.Request(
            self._url,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            items = json.load(answer)["data"]
        if [item["index"] for item in items] != list(range(len(texts))):
            raise SystemExit("the answer's items are not in the order of the texts")
        rows = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in items]
        return np.stack(rows).astype(np.float64)


def report(data: Path, embed: Embed, *, bundled: bool) -> bool:
    """Print a line a year; return whether every number is where it should be."""
    right = True
    print("year   pairs  spearman  published   seconds")
    for year, (expected_pairs, published) in PUBLISHED.items():
        pairs = read_year(data / str(year))
        started = time.perf_counter()
        value = score(pairs, embed)
        seconds = time.perf_counter() - started
        print(f"{year}  {len(pairs):6}    {value:6.2f}     {published:6.2f}   {seconds:7.1f}")
        right &= len(pairs) == expected_pairs
        right &= not bundled or abs(value - published) <= TOLERANCE
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description="SemEval STS 2013-2016 through a gateway.")
    parser.add_argument("--data", type=Path, required=True, help="folder with 2013 … 2016")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default=BUNDLED)
    parser.add_argument("--key", default="none", help="API key, where the gateway asks for one")
    arguments = parser.parse_args()
    gateway = Gateway(arguments.url, arguments.model, arguments.key)
    return 0 if report(arguments.data, gateway, bundled=arguments.model == BUNDLED) else 1


if __name__ == "__main__":
    sys.exit(main())
