"""Measures FlashAttention 3 of the peer's bundle at the shapes of attention_bench and prefill_bench, over pages of 64 in random
order; prints lines of JSON. Decode: launches in a CUDA graph, which use the sequences of a pool larger than L2 in turn; the shortest
of five runs, with the best settings that a caller can choose (scheduler metadata made before, as vLLM does once per step, or not;
the number of splits). Prefill: one causal sequence, the best of three short bursts after a pause, with and without metadata."""
import json
import random
import time

import torch
from vllm.vllm_flash_attn import flash_attn_varlen_func, get_scheduler_metadata

PAGE, DIM = 64, 128
ROTATE_BYTES = 512 << 20  # The least bytes of the pages of all launches together.
# id, sequences, tokens, heads, kv heads. The first two are rows of the table in TB/s, the others in microseconds.
DECODE = [("attn_decode_mha_tbs", 32, 4096, 32, 32), ("attn_decode_gqa_tbs", 32, 4096, 56, 8)]
DECODE += [(f"fa3_decode_{n}_us", n, 290, 32, 32) for n in (1, 8, 64, 128, 256)]
DECODE += [(f"fa3_decode_{n}x{tokens}_us", n, tokens, 32, 32) for n, tokens in ((1, 256), (1, 4096), (256, 256))]
PREFILL = [("attn_prefill_4k_tflops", 4096, 32, 32), ("attn_prefill_16k_tflops", 16384, 32, 32), ("fa3_prefill_2048_us", 2048, 32, 32),
           ("fa3_prefill_gqa_4k_tflops", 4096, 56, 8), ("fa3_prefill_gqa_16k_tflops", 16384, 56, 8)]
SPLITS = (0, 1, 2, 4, 8)  # 0: FlashAttention chooses.


def ints(values):
    return torch.tensor(values, dtype=torch.int32, device="cuda")


class Problem:
    """`sets` times `sequences` sequences of `tokens` tokens, of which the last `rows` are queries."""

    def __init__(self, sequences, tokens, heads, kv_heads, rows, sets=1):
        self.sequences, self.tokens, self.heads, self.kv_heads, self.rows, self.sets = sequences, tokens, heads, kv_heads, rows, sets
        pages = -(-tokens // PAGE)
        pool = sets * sequences * pages
        self.keys, self.values = (torch.randn(pool, PAGE, kv_heads, DIM, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        order = list(range(pool))
        random.Random(1).shuffle(order)
        self.tables = ints(order).view(sets, sequences, pages)
        self.used = ints([tokens] * sequences)
        self.begins = ints([i * rows for i in range(sequences + 1)])
        self.q = torch.randn(sequences * rows, heads, DIM, device="cuda", dtype=torch.bfloat16)
        self.out = torch.empty_like(self.q)

    def schedule(self, splits):
        return get_scheduler_metadata(batch_size=self.sequences, max_seqlen_q=self.rows, max_seqlen_k=self.tokens,
                                      num_heads_q=self.heads, num_heads_kv=self.kv_heads, headdim=DIM, cache_seqlens=self.used,
                                      qkv_dtype=torch.bfloat16, cu_seqlens_q=self.begins, page_size=PAGE, causal=True,
                                      num_splits=splits)

    def attend(self, index=0, splits=0, schedule=None):
        flash_attn_varlen_func(self.q, self.keys, self.values, self.rows, self.begins, self.tokens, seqused_k=self.used, causal=True,
                               block_table=self.tables[index % self.sets], out=self.out, scheduler_metadata=schedule,
                               num_splits=splits, fa_version=3)

    def check(self):
        """Compares the first heads of the first sequence with float32, so that the timed launches compute the wanted attention."""
        self.attend()
        table, group = self.tables[0, 0].long(), self.heads // self.kv_heads
        k, v = (x[table][:, :, :2].reshape(-1, 2, DIM)[:self.tokens].float() for x in (self.keys, self.values))
        q = self.q[:self.rows].float()
        rows = sorted({0, self.rows // 2, self.rows - 1})
        for head in {0, group}:
            for row in rows:
                seen = self.tokens - self.rows + row + 1
                weights = torch.softmax(k[:seen, head // group] @ q[row, head] * DIM**-0.5, 0)
                error = (self.out[row, head].float() - weights @ v[:seen, head // group]).abs().max().item()
                assert error < 0.02, f"head {head}, row {row}: {error} off"


def microseconds(f, count):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(count):
        f()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / count * 1e3


def graph_us(problem, splits, planned):
    """The time of one launch."""
    schedule = problem.schedule(splits) if planned else None
    launches = problem.sets * -(-8 // problem.sets)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(2):
            problem.attend(i, splits, schedule)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(launches):
            problem.attend(i, splits, schedule)
    graph.replay()
    torch.cuda.synchronize()
    return min(microseconds(graph.replay, 1) for _ in range(5)) / launches


def best_decode(problem):
    """(microseconds, the settings that gave them)"""
    found = {}
    for planned in (True, False):
        for splits in SPLITS:
            how = f"splits {splits or 'auto'}, {'planned' if planned else 'unplanned'}"
            try:
                found[how] = graph_us(problem, splits, planned)
            except Exception as failure:  # This version does not support the setting.
                print(f"{how}: {type(failure).__name__}: {failure}", flush=True)
                torch.cuda.synchronize()
    how = min(found, key=found.get)
    return found[how], how


def line(name, value, unit, **more):
    print(json.dumps({"id": name, "value": value, "unit": unit, **more}), flush=True)


def decode(name, sequences, tokens, heads, kv_heads):
    held = 2 * 2 * sequences * -(-tokens // PAGE) * PAGE * kv_heads * DIM
    problem = Problem(sequences, tokens, heads, kv_heads, 1, max(2, -(-ROTATE_BYTES // held)))
    problem.check()
    us, how = best_decode(problem)
    rate = 2 * 2 * sequences * tokens * kv_heads * DIM / us * 1e-6
    line(name, rate if name.endswith("tbs") else us, "TB/s" if name.endswith("tbs") else "us", us=us, tb_s=rate, how=how)


def prefill(name, tokens, heads, kv_heads):
    problem = Problem(1, tokens, heads, kv_heads, tokens)
    problem.check()
    operations = 4 * DIM * heads * tokens * tokens / 2
    launches = 20 if operations < 1e11 else 3
    found = []
    for schedule in (None, problem.schedule(0)):
        torch.cuda.synchronize()
        time.sleep(0.3)
        attend = lambda: problem.attend(0, 0, schedule)  # noqa: B023, E731
        microseconds(attend, 1)
        found += [microseconds(attend, launches) for _ in range(3)]
    us = min(found)
    rate = operations / us * 1e-6
    line(name, us if name.endswith("us") else rate, "us" if name.endswith("us") else "TFLOP/s", us=us, tflops=rate)


def main():
    torch.manual_seed(1)
    for one in PREFILL:
        prefill(*one)
    for one in DECODE:
        decode(*one)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    with torch.inference_mode():
        main()
