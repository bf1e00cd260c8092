"""tests/gpu/symmetric_memory_peer.py: the all-reduces that PyTorch has between GPUs, to compare with comm_bench in the same run.

    python3 tests/gpu/symmetric_memory_peer.py [RANKS]

Measures torch.ops.symm_mem.one_shot_all_reduce, two_shot_all_reduce_ and NCCL's all_reduce of bf16 in a CUDA graph of 100 operations:
the best of 5 replays, of the slowest rank. Prints a line of JSON for each size and way. They only sum; comm_bench also adds the residual
and computes the norm. NVLink multicast stays off.
"""
import json
import os
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symmetric_memory
import torch.multiprocessing as multiprocessing

SIZES = [8 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20]
REPEATS = 5


def measure(operation, count):
    """Microseconds of one operation on the slowest rank."""
    operation()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            operation()
    best = float("inf")
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for repeat in range(REPEATS + 1):
        dist.barrier()
        torch.cuda.synchronize()
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if repeat > 0:
            best = min(best, begin.elapsed_time(end))
    slowest = torch.tensor([1e3 * best / count], device="cuda")
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return slowest.item()


def rank_main(rank, ranks, store):
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"file://{store}", rank=rank, world_size=ranks, device_id=torch.device("cuda", rank))
    group = dist.group.WORLD.group_name
    for size in SIZES:
        count = 100 if size <= 1 << 20 else 20
        shared = symmetric_memory.empty(size // 2, dtype=torch.bfloat16, device=torch.device("cuda", rank))
        shared.zero_()
        symmetric_memory.rendezvous(shared, group)
        plain = torch.zeros(size // 2, dtype=torch.bfloat16, device="cuda")
        ways = {"torch_one_shot": lambda s=shared: torch.ops.symm_mem.one_shot_all_reduce(s, "sum", group),
                "torch_two_shot": lambda s=shared: torch.ops.symm_mem.two_shot_all_reduce_(s, "sum", group),
                "torch_nccl": lambda p=plain: dist.all_reduce(p)}
        for name, operation in ways.items():
            us = measure(operation, count)
            if rank == 0:
                print(json.dumps({"id": f"all_reduce_{name}", "value": round(us, 2), "unit": "us", "ranks": ranks, "bytes": size}), flush=True)
    dist.destroy_process_group()


def main():
    ranks = int(sys.argv[1]) if len(sys.argv) > 1 else torch.cuda.device_count()
    os.environ.setdefault("TORCH_SYMM_MEM_DISABLE_MULTICAST", "1")
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(rank_main, args=(ranks, os.path.join(folder, "store")), nprocs=ranks)


if __name__ == "__main__":
    main()
