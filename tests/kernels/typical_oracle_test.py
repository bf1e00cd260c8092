"""Compares the tokens that typical_p keeps with TypicalLogitsWarper of transformers, written in numpy's float64, after
temperature, top_k, top_p and min_p in its order. Rows are taken where float64 decides with a clear margin. A token that is
kept is drawn sooner or later; one that is not kept never is."""
import os
import subprocess
import unittest

import numpy as np

PROGRAM = os.environ["FATHOM_SAMPLE_DUMP"]
DRAWS = 20_000
RARE = 0.002  # A token with a larger share is missing from the draws with a probability below e^-40.
MARGIN = 1e-5


class Unclear(Exception):
    """The margin is too small."""


def clear(*differences):
    if any(np.min(np.abs(difference), initial=1) < MARGIN for difference in differences):
        raise Unclear


def log_softmax(z):
    shifted = z - z.max()
    return shifted - np.log(np.exp(shifted).sum())


def typical(z, mass):
    """As in transformers, for one row; a token that is out already has a score of -inf."""
    normalized = log_softmax(z)
    p = np.exp(normalized)
    with np.errstate(invalid="ignore"):
        entropy = -np.nansum(normalized * p)
    shifted = np.abs(-normalized - entropy)
    order = np.argsort(shifted, kind="stable")
    cumulative = p[order].cumsum()
    last = min(int((cumulative < mass).sum()), len(z) - 1)
    others = shifted[np.isfinite(shifted) & (shifted != shifted[order[last]])]
    clear(cumulative - mass, others - shifted[order[last]])
    return np.where(shifted > shifted[order[last]], -np.inf, z)


def kept(logits, temperature, top_k, top_p, min_p, typical_p):
    z = logits.astype(np.float64) / float(np.float32(temperature))
    order = np.argsort(-z, kind="stable")
    if 0 < top_k < len(z):
        clear(z[order[top_k - 1]] - z[order[top_k]])
        z[order[top_k:]] = -np.inf
    if top_p < 1:
        before = np.exp(log_softmax(z))[order].cumsum() - np.exp(log_softmax(z))[order]
        clear(before - top_p)
        z[order[before >= top_p]] = -np.inf
    if min_p > 0:
        share = np.exp(z - z.max())
        clear(share - min_p)
        z[share < min_p] = -np.inf
    if typical_p < 1:
        z = typical(z, typical_p)
    return np.exp(log_softmax(z))


def drawn(logits, temperature, top_k, top_p, min_p, typical_p):
    values = (temperature, top_k, top_p, min_p, typical_p, DRAWS)
    out = subprocess.run([PROGRAM, *(repr(float(value)) for value in values)], input=logits.tobytes(), capture_output=True, check=True).stdout
    return np.frombuffer(out, np.int32)


class TypicalTokens(unittest.TestCase):
    def test_kept_tokens_are_those_of_float64(self):
        seed = int(os.environ.get("FATHOM_SEED", "13"))
        rng = np.random.default_rng(seed)
        compared = equal = 0
        while compared < 150:
            vocab = int(rng.choice([3, 8, 24, 60, 2000]))
            logits = (rng.standard_normal(vocab) * rng.choice([0.3, 1.0, 2.0, 5.0])).astype(np.float32)
            if rng.random() < 0.2:
                logits = np.round(logits)  # Tokens at one distance.
            params = dict(temperature=float(rng.choice([0.5, 1.0, 1.5])), top_k=int(rng.choice([0, 0, 5, 20])), top_p=float(rng.choice([1.0, 1.0, 0.9])),
                          min_p=float(rng.choice([0.0, 0.0, 0.05])), typical_p=float(rng.choice([0.01, 0.2, 0.5, 0.8, 0.95, 0.99, 1.0])))
            try:
                p = kept(logits, **params)
            except Unclear:
                continue
            compared += 1
            with self.subTest(seed=seed, vocab=vocab, **params):
                counts = drawn(logits, **params)
                self.assertEqual([int(i) for i in np.nonzero(counts)[0] if p[i] == 0], [], "drawn, but not kept")
                self.assertEqual([int(i) for i in np.nonzero(p > RARE)[0] if counts[i] == 0], [], "kept, but not drawn")
                equal += np.array_equal(p > 0, counts > 0)
        self.assertGreater(equal, 100)


if __name__ == "__main__":
    unittest.main(verbosity=2)
