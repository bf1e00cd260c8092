"""Compares the rotary tables with the published formulas in numpy's float64, at every position from 0 to 131,071, and a scaling
by 1 with the plain table, bit for bit."""
import math
import os
import subprocess
import unittest

import numpy as np

POSITIONS = 131_072
PROGRAM = os.environ["FATHOM_ROPE_TABLE_DUMP"]
FIELDS = ("head_dim", "theta", "factor", "low", "high", "original", "beta_fast", "beta_slow", "truncate", "attention")
DEFAULTS = dict(theta=1e4, factor=1.0, low=1.0, high=4.0, original=0, beta_fast=32.0, beta_slow=1.0, truncate=1, attention=1.0)


def tables(kind, positions=POSITIONS, **given):
    values = {**DEFAULTS, **given}
    out = subprocess.run([PROGRAM, kind, *(repr(float(values[name])) for name in FIELDS), str(positions)], capture_output=True, check=True).stdout
    return np.frombuffer(out, np.float32).reshape(2, positions, given["head_dim"] // 2)


def yarn_frequencies(head_dim, theta, factor, original, beta_fast=32.0, beta_slow=1.0, truncate=1, **_):
    """As published: interpolated and extrapolated frequencies, mixed by a ramp between two pairs."""
    extrapolated = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    interpolated = extrapolated / factor

    def pair(turns):
        return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(beta_fast), pair(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(head_dim // 2, dtype=np.float64) - low) / (high - low), 0, 1)
    return interpolated * ramp + extrapolated * (1 - ramp)


def llama3_frequencies(head_dim, theta, factor, original, low, high, **_):
    plain = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    wavelength = 2 * math.pi / plain
    smooth = (original / wavelength - low) / (high - low)
    mixed = (1 - smooth) * plain / factor + smooth * plain
    return np.where(wavelength < original / high, plain, np.where(wavelength > original / low, plain / factor, mixed))


class RopeTables(unittest.TestCase):
    def check(self, frequencies, attention, got):
        """Within one unit in the last place of the largest value, and nearly all values equal."""
        equal = 0
        for begin in range(0, POSITIONS, 8192):
            angles = np.arange(begin, begin + 8192, dtype=np.float64)[:, None] * frequencies
            for index, function in enumerate((np.cos, np.sin)):
                want = (function(angles) * attention).astype(np.float32)
                part = got[index, begin:begin + 8192]
                np.testing.assert_allclose(part, want, rtol=0, atol=attention * 2.0 ** -23)
                equal += int(np.count_nonzero(part == want))
        self.assertGreater(equal, 0.9999 * got.size)

    def test_yarn(self):
        cases = [
            dict(head_dim=128, theta=1e6, factor=4.0, original=32768, attention=0.1 * math.log(4.0) + 1.0),  # Qwen's.
            dict(head_dim=64, theta=1e4, factor=16.0, original=64, beta_fast=24.0, beta_slow=2.0, attention=1.2),
            dict(head_dim=32, theta=1e4, factor=40.0, original=4096, truncate=0, attention=1.0),  # DeepSeek V3's shape.
            dict(head_dim=16, theta=150000.0, factor=32.0, original=4096, truncate=0, attention=0.1 * math.log(32.0) + 1.0),
            dict(head_dim=16, theta=1e4, factor=8.0, original=40, beta_fast=1.0, beta_slow=1.0),  # Both ends one pair.
            dict(head_dim=16, theta=1e4, factor=8.0, original=6, beta_fast=32.0, beta_slow=1.0),  # Ends below the first pair.
        ]
        for case in cases:
            with self.subTest(**case):
                self.check(yarn_frequencies(**case), case.get("attention", 1.0), tables("yarn", **case))

    def test_llama3_and_linear(self):
        case = dict(head_dim=64, theta=5e5, factor=8.0, low=1.0, high=4.0, original=8192)
        self.check(llama3_frequencies(**case), 1.0, tables("llama3", **case))
        plain = 1.0 / 1e4 ** (np.arange(0, 64, 2, dtype=np.float64) / 64)
        self.check(plain / 4, 1.0, tables("linear", head_dim=64, factor=4.0))

    def test_a_factor_of_1_is_the_plain_table(self):
        for theta, original, truncate in ((1e4, 4096, 1), (1e6, 32768, 0), (5e5, 100, 0)):
            plain = tables("none", head_dim=64, theta=theta)
            yarn = tables("yarn", head_dim=64, theta=theta, factor=1.0, original=original, truncate=truncate)
            self.assertTrue(np.array_equal(plain, yarn))
        self.assertTrue(np.array_equal(tables("none", head_dim=64), tables("linear", head_dim=64, factor=1.0)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
