"""tests/gpu/gpu_rows.py: the rows of docs/performance/<card>.json: floors, the peers' names, merging, the table. Pure."""
import json
import re
import statistics

# id -> (unit, higher is better). The order is the table's.
ROWS = {
    "read_tbs": ("TB/s", True), "matrix_tflops": ("TFLOP/s", True), "matrix_hot_tflops": ("TFLOP/s", True),
    "decode_7b_b1_ms": ("ms", False), "decode_13b_b1_ms": ("ms", False), "decode_33b_b1_ms": ("ms", False),
    "step_7b_b8_ms": ("ms", False), "step_7b_b64_ms": ("ms", False), "step_7b_b128_ms": ("ms", False),
    "ttft_7b_128_ms": ("ms", False), "ttft_7b_512_ms": ("ms", False), "ttft_7b_2048_ms": ("ms", False),
    "throughput_7b_128_128_tps": ("tokens/s", True), "throughput_7b_1000_1000_tps": ("tokens/s", True),
    "throughput_33b_1000_1000_tps": ("tokens/s", True),
    "attn_decode_mha_tbs": ("TB/s", True), "attn_decode_gqa_tbs": ("TB/s", True),
    "attn_prefill_4k_tflops": ("TFLOP/s", True), "attn_prefill_16k_tflops": ("TFLOP/s", True),
    "idle_7b_b1_pct": ("%", False), "load_7b_s": ("s", False), "plan_error_pct": ("%", False),
    "fault_flag_cost_pct": ("%", False), "canonical_cost_pct": ("%", False),
}
SHAPES = {"7b": "deepseek-llm-7b", "13b": "llama-2-13b", "33b": "deepseek-coder-33b"}


class Shape:
    """Bytes and operations of a config.json, as cli/plan/roofline.h counts them."""

    def __init__(self, config):
        c = config
        head_dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        q, kv = c["num_attention_heads"] * head_dim, c["num_key_value_heads"] * head_dim
        self.layers = c["num_hidden_layers"] * (c["hidden_size"] * (2 * q + 2 * kv) + 3 * c["hidden_size"] * c["intermediate_size"])
        self.head = c["hidden_size"] * c["vocab_size"]
        self.step_bytes = 2 * (self.layers + self.head)
        self.kv_bytes = 2 * 2 * c["num_hidden_layers"] * kv
        self.attention = 2 * c["num_hidden_layers"] * q  # To be multiplied by n squared: QK and PV of a causal prompt of n tokens.


class Card:
    """The measured limits of the card: read_tbs, matrix_tflops, memory_gib."""

    def __init__(self, read_tbs, matrix_tflops, memory_gib):
        self.read_tbs, self.matrix_tflops, self.memory_gib = read_tbs, matrix_tflops, memory_gib

    def step_ms(self, shape, sequences, context):
        read = (shape.step_bytes + sequences * context * shape.kv_bytes) / self.read_tbs / 1e9
        return max(read, shape.step_bytes * sequences / self.matrix_tflops / 1e9)

    def prefill_ms(self, shape, tokens):
        operations = 2 * tokens * shape.layers + 2 * shape.head + shape.attention * tokens * tokens
        return max(shape.step_bytes / self.read_tbs / 1e9, operations / self.matrix_tflops / 1e9)

    def throughput_tps(self, shape, requests, input_len, output_len):
        context = input_len + output_len / 2
        room = 0.93 * self.memory_gib * 2**30 - shape.step_bytes - 2 * shape.head - 4e9
        at_once = min(max(room / (context * shape.kv_bytes), 1), requests)
        kv = context * shape.kv_bytes / self.read_tbs / 1e12
        products = max(shape.step_bytes / (self.read_tbs * 1e12 * at_once), shape.step_bytes / (self.matrix_tflops * 1e12))
        return 1 / (kv + products + input_len / output_len * 2 * shape.layers / (self.matrix_tflops * 1e12))


def floor_of(row, shapes, card):
    """The floor of a row (for rates: the ceiling), or None; shapes: {"7b": Shape}. With one sequence of up to 256 tokens the KV
    is less than 1 % of the bytes and is left out. In the other steps a sequence has (160 + 65 + 160 + 193) / 2 = 289 tokens."""
    if card is None:
        return None
    if m := re.fullmatch(r"decode_(\w+)_b1_ms", row):
        return card.step_ms(shapes[m[1]], 1, 0)
    if m := re.fullmatch(r"step_(\w+)_b(\d+)_ms", row):
        return card.step_ms(shapes[m[1]], int(m[2]), 289)
    if m := re.fullmatch(r"ttft_(\w+)_(\d+)_ms", row):
        return card.prefill_ms(shapes[m[1]], int(m[2]))
    if m := re.fullmatch(r"throughput_(\w+)_(\d+)_(\d+)_tps", row):
        requests = 1024 if m[2] == "128" else 128 if m[1] == "33b" else 300
        return card.throughput_tps(shapes[m[1]], requests, int(m[2]), int(m[3]))
    if row.startswith("attn_decode_"):
        return card.read_tbs
    if row.startswith("attn_prefill_"):
        return card.matrix_tflops
    return None


def peer_rows(result):
    """{row id: value} of the JSON after RESULT that peer_vllm.py prints."""
    shape, rows = result["shape"], {}
    for name, value in result.items():
        if name == "decode_b1_ms":
            rows[f"decode_{shape}_b1_ms"] = value
        elif m := re.fullmatch(r"ttft_(\d+)_ms", name):
            rows[f"ttft_{shape}_{m[1]}_ms"] = value[1] if isinstance(value, list) else value
        elif m := re.fullmatch(r"bs:(\d+):160", name):
            rows[f"step_{shape}_b{m[1]}_ms"] = value
        elif m := re.fullmatch(r"tp:\d+:(\d+):(\d+)", name):
            rows[f"throughput_{shape}_{m[1]}_{m[2]}_tps"] = value
    return rows


def last_json(text, marker=""):
    """The JSON object of the last line that begins with marker and {; None without one."""
    found = None
    for line in text.splitlines():
        if line.startswith(marker) and line[len(marker):].lstrip().startswith("{"):
            try:
                found = json.loads(line[len(marker):])
            except ValueError:
                pass
    return found


def json_lines(text):
    """The objects with an id and a value, one per line, among other output."""
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                one = json.loads(line)
            except ValueError:
                continue
            if "id" in one and "value" in one:
                found.append(one)
    return found


def gtest_counts(text, code):
    """(passed, failed, names of the failed) of the output of a GoogleTest program. A program that died counts as one failure, and a
    skipped test as a failed one."""
    m = re.search(r"\[  PASSED  \] (\d+) tests?", text)
    passed = int(m[1]) if m else 0
    failed = sorted(set(re.findall(r"^\[  FAILED  \] ([^\s,]+\.[^\s,]+)", text, re.M)))
    failed += [f"{name} skipped" for name in sorted(set(re.findall(r"^\[  SKIPPED \] ([^\s,]+\.[^\s,]+)", text, re.M)))]
    if not failed and (code != 0 or not m):
        failed = [f"ended with {code}"]
    return passed, len(failed), failed


def gtest_names(text):
    """The full names of the tests in the output of --gtest_list_tests."""
    names, suite = [], ""
    for line in text.splitlines():
        name = line.split("#")[0].rstrip()
        if re.fullmatch(r"[\w/]+\.", name):
            suite = name
        elif suite and re.fullmatch(r"  [\w/]+", name):
            names.append(suite + name.strip())
    return names


def metrics(text):
    """{name with labels: value} of a /metrics page."""
    return {m[1]: float(m[2]) for m in re.finditer(r"^([a-zA-Z_:][^\s{]*(?:\{[^}]*\})?) (\S+)$", text, re.M)}


def idle_percent(before, after):
    """The idle share of the device between two readings of a worker's metrics; None: nothing was computed."""
    def total(page, name):
        return sum(v for k, v in page.items() if k.split("{")[0].endswith(name))
    idle = total(after, "device_idle_seconds_total") - total(before, "device_idle_seconds_total")
    busy = total(after, "device_busy_seconds_total") - total(before, "device_busy_seconds_total")
    return 100 * idle / (idle + busy) if busy > 0 else None


def arenas(page):
    """{arena: bytes} of a worker's metrics, without the memory of other processes."""
    found = {m[1]: v for k, v in page.items() if (m := re.search(r'worker_memory_bytes\{.*?arena="([^"]+)"', k))}
    found.pop("other", None)
    return found


# The number of each op in a 7B step.
CANONICAL_OPS = {"qkv": 30, "o": 30, "gate_up": 30, "down": 30, "attention": 30, "head": 1}


def canonical_costs(lines, fa3):
    """The time of each step with our kernels and with the fastest others, from the GEMMs of canonical_cost_bench, the attention of
    attention_bench and prefill_bench, and the microseconds of FlashAttention 3. One {step, ours_us, other_us, pct, alone_pct, ops} for
    each step. For `pct` our launches overlap as the engine makes them; for `alone_pct` they run one after the other."""
    products = [one for one in lines if one["id"] == "canonical"]
    ours = {one["id"]: one for one in lines}
    costs = []
    for step, rows in dict.fromkeys((one["step"], one["rows"]) for one in products):
        found = {one["op"]: (one["ours_us"], one["alone_us"], one["other_us"]) for one in products
                 if (one["step"], one["rows"]) == (step, rows)}
        if step == "prefill":
            us = ours["attn_prefill_2k_tflops"]["us"]
            found["attention"] = (us, us, fa3[f"fa3_prefill_{rows}_us"])
        else:
            one = ours[f"attn_decode_{rows}x290"]
            found["attention"] = (one["overlapped_us"], one["us"], fa3[f"fa3_decode_{rows}_us"])
        total, alone, other = (sum(count * found[op][i] for op, count in CANONICAL_OPS.items()) for i in range(3))
        costs.append({"step": f"{step} {rows}", "ours_us": total, "other_us": other, "pct": (total / other - 1) * 100,
                      "alone_pct": (alone / other - 1) * 100, "ops": {op: (found[op][0], found[op][2]) for op in CANONICAL_OPS}})
    return costs


def flag_costs(found):
    """{sequences: percent} of {sequences: {flagged: [ms]}}, computed from the medians."""
    return {n: (statistics.median(by[True]) / statistics.median(by[False]) - 1) * 100 for n, by in found.items()}


def ratios(found):
    """{name: ratio} of {name: {after: [values]}}: the median after over the median before."""
    return {name: statistics.median(by[True]) / statistics.median(by[False]) for name, by in found.items()}


def merge(runs):
    """Merges the rows of the results.json of several runs; a later run replaces the rows of an earlier one. A row gets a peer's figure only
    if both were measured on the same GPU."""
    rows, peers, limits = {}, {}, None
    for run in runs:
        limits = run.get("limits") or limits
        for one in run.get("rows", []):
            kept = rows.get(one["id"], {})
            rows[one["id"]] = {**one, "gpu_uuid": run.get("gpu_uuid")}
            if one.get("peer") is None and kept.get("peer") is not None and kept["gpu_uuid"] == run.get("gpu_uuid"):
                rows[one["id"]]["peer"] = kept["peer"]
        for name, value in run.get("peers", {}).items():
            peers[(run.get("gpu_uuid"), name)] = value
    for one in rows.values():
        value = peers.get((one.pop("gpu_uuid"), one["id"]))
        if one.get("peer") is None:
            one["peer"] = value
    order = {name: i for i, name in enumerate(ROWS)}
    return sorted(rows.values(), key=lambda one: (order.get(one["id"], len(order)), one["id"]))


def number(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(rows):
    """A table for people, with a line for each row: value, floor, share of the floor, the peer's value, and how many times as fast ours is."""
    lines = [f"{'id':<30}{'value':>10}{'floor':>10}{'share':>7}{'peer':>10}{'x peer':>8}"]
    for one in rows:
        value, floor, peer = one["value"], one.get("floor"), one.get("peer")
        better = ROWS.get(one["id"], ("", one.get("higher_is_better", False)))[1]
        ratio = lambda a, b: None if not a or not b else (a / b if better else b / a)  # noqa: E731
        share, faster = ratio(value, floor), ratio(value, peer)
        lines.append(f"{one['id']:<30}{number(value):>10}{number(floor):>10}{'-' if share is None else f'{share:.0%}':>7}"
                     f"{number(peer):>10}{'-' if faster is None else f'{faster:.2f}':>8}")
    return "\n".join(lines)
