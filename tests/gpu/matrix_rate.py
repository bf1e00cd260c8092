"""Measures the card's rate of large bf16 GEMMs with PyTorch, cool (short bursts) and at the power limit; prints lines of JSON."""
import json
import time

import torch

N = 8192


def milliseconds(f, count):
    """The time of one call: the shortest of five bursts."""
    f()
    torch.cuda.synchronize()
    least = float("inf")
    for _ in range(5):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(count):
            f()
        end.record()
        torch.cuda.synchronize()
        least = min(least, begin.elapsed_time(end) / count)
    return least


def read_tbs():
    """The reading rate of a reduction, for the case that the bundle has no better kernel that only reads."""
    x = torch.ones(1 << 30, device="cuda", dtype=torch.int32)
    return x.numel() * 4 / milliseconds(lambda: torch.max(x), 8) / 1e9


def main():
    a, b = (torch.randn(N, N, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    product = lambda: torch.mm(a, b, out=out)  # noqa: E731
    product()
    torch.cuda.synchronize()
    time.sleep(0.5)
    cool = milliseconds(product, 3)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        for _ in range(10):
            product()
        torch.cuda.synchronize()
    hot = milliseconds(product, 20)
    for name, value in (("matrix_tflops", cool), ("matrix_hot_tflops", hot)):
        print(json.dumps({"id": name, "value": 2 * N**3 / value / 1e9, "unit": "TFLOP/s"}))
    del a, b, out
    print(json.dumps({"id": "read_tbs", "value": read_tbs(), "unit": "TB/s"}))


if __name__ == "__main__":
    main()
