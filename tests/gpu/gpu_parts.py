"""tests/gpu/gpu_parts.py: the parts of tests/gpu/run; each is a function of the Host. Rows and floors: gpu_rows.py."""
import glob
import json
import pathlib
import re
import shutil
import subprocess
import threading
import time

from gpu_host import ROOT, Clocks, Failed, Serve, last_lines, plain_environment, python, wait_until
import gpu_guided
import gpu_prefix
import gpu_rows
import gpu_sanitizer

HERE = pathlib.Path(__file__).resolve().parent
SHAPE_FILES = {key: ROOT / f"models/shapes/{name}.json" for key, name in gpu_rows.SHAPES.items()}


def limits(host):
    """Measures the limits of the card, the first rows of each run, and finds its name."""
    program = host.gpu / "card_bench"
    found = {}
    with Clocks(host, "limits"):
        if program.exists():
            for one in gpu_rows.json_lines(host.run([program], 60)[0]):
                found[one["id"]] = one["value"]
        for one in gpu_rows.json_lines(host.run([python(), HERE / "matrix_rate.py"], 180, env=plain_environment())[0]):
            found.setdefault(one["id"], one["value"])
    host.card = gpu_rows.Card(found["read_tbs"], found["matrix_tflops"], float(host.facts.get("memory.total", 0)) / 1024)
    for name in ("read_tbs", "matrix_tflops", "matrix_hot_tflops"):
        if name in found:
            host.row(name, found[name], "tests/gpu/run limits")
    host.say(f"limits: read {found['read_tbs']:.3f} TB/s, matrix {found['matrix_tflops']:.0f} TFLOP/s cool, "
             f"{found.get('matrix_hot_tflops', 0):.0f} hot; {host.facts.get('name')} {host.facts.get('uuid')} "
             f"driver {host.facts.get('driver_version')}")


def programs(host, ending):
    chosen = [p for p in sorted(host.gpu.glob(f"*{ending}")) if re.search(host.options.only or "", p.name)]
    if not chosen:
        raise Failed(f"the bundle has no gpu/*{ending}" + (f" that matches {host.options.only}" if host.options.only else ""))
    return chosen


def tests(host):
    """All GPU tests."""
    passed = total = 0
    notes = []
    for program in programs(host, "_gpu_test"):
        text, code = host.run([program, "--gtest_brief=1"], host.options.test_timeout, check=False)
        good, bad, names = gpu_rows.gtest_counts(text, code)
        passed, total = passed + good, total + good + bad
        for name in names[:4]:
            notes.append(f"{program.name}: {name}: {' | '.join(failure_lines(text))}")
    host.check("tests", passed, total, notes)


def failure_lines(text, count=4):
    """The lines of the first failure that show the difference."""
    lines = [line.strip() for line in text.splitlines()]
    first = next((i for i, line in enumerate(lines) if "Failure" in line or "rror" in line), max(len(lines) - count, 0))
    return [line[:160] for line in lines[first:first + count] if line]


def sanitizer(host):
    """Every kernel test, on fewer and narrower shapes, under compute-sanitizer's memcheck and racecheck."""
    gpu_sanitizer.sanitizer(host, programs(host, "_gpu_test"))


def bench(host):
    """Runs all benchmark programs, which print lines of JSON. Lines whose id is in the table become rows."""
    count = 0
    for program in programs(host, "_bench"):
        if program.name in ("card_bench", "canonical_cost_bench"):  # They are parts of their own.
            continue
        with Clocks(host, program.name):
            text, code = host.run([program], host.options.test_timeout, check=False)
        found = gpu_rows.json_lines(text)
        for one in found:
            count += 1
            host.measurements.append({"program": program.name, **one})
            if one["id"] in gpu_rows.ROWS:
                host.row(one["id"], one["value"], f"gpu/{program.name}")
            if not host.options.brief:
                host.say(f"  {one['id']:<44} {gpu_rows.number(one['value']):>10} {one.get('unit', '')}")
        if code != 0:
            host.check(program.name, 0, 1, [f"ended with {code}: {last_lines(text)}"])
    host.say(f"bench: {count} measurements")


def goldens(host, label=""):
    """Recorded answers of the bundled models and of every fixture."""
    cases = [(ROOT / f"models/{name}", ROOT / f"tests/data/goldens/{name}.jsonl") for name in ("fathom-tiny", "fathom-tiny-draft")]
    cases += [(pathlib.Path(f).parent, pathlib.Path(f)) for f in sorted(glob.glob(str(host.work / "fixtures*/*/goldens.jsonl")))]
    if len(cases) == 2:
        host.say("goldens: no fixtures (tests/gpu/bundle --data)")
    # A vocabulary that is no multiple of the LM head's tiles. It has three more tokens, which lose every tie.
    odd = host.work / "fathom-tiny-4099"
    shutil.rmtree(odd, ignore_errors=True)
    host.run([python(), ROOT / "tests/tools/rewrite_model.py", ROOT / "models/fathom-tiny", odd, "--vocab", "4099"], 60)
    cases.append((odd, ROOT / "tests/data/goldens/fathom-tiny.jsonl"))
    for model, file in cases:
        try:
            with Serve(host, model) as served:
                text, _ = host.run([host.bin / "fathom", "verify", "--goldens", file, "--server", served.server, "--json"], 300, check=False)
            found = gpu_rows.last_json(text) or {}
            notes = [f"{one.get('name')}: {'; '.join(one.get('differences', []))}" for one in found.get("failed", [])]
            passed = found.get("passed", found.get("exact", 0))
            host.check(f"goldens {model.name}{label}", passed, found.get("total", 1), notes or ([] if found else [last_lines(text)]))
        except Exception as failure:
            host.check(f"goldens {model.name}{label}", 0, 1, [str(failure)])


def equalities(host, label=""):
    """Exact equalities at fathom-tiny and, with dummy weights, at the shapes of --shapes."""
    for name in ["tiny", *host.options.shapes]:
        model = ROOT / "models/fathom-tiny" if name == "tiny" else SHAPE_FILES[name]
        load = [] if name == "tiny" else ["--load-format=dummy"]
        serve = [f"--serve={word}" for word in [*load, *host.options.serve]]
        text, code = host.run([python(), HERE / "equalities.py", "--device", host.options.device, "--model", model, *serve],
                              900, check=False)
        found = gpu_rows.last_json(text)
        if found is None:
            host.check(f"equalities {name}{label}", 0, 1, [f"ended with {code}: {last_lines(text)}"])
        else:
            host.check(f"equalities {name}{label}", found["passed"], found["total"], found["failed"])


def swap(host):
    """Preempted sequences at the 7B shape with dummy weights: equal tokens by swapping and by computing again, and the times of both."""
    shape = host.shapes["7b"]
    text, code = host.run([python(), HERE / "swap.py", "--device", host.options.device, "--model", SHAPE_FILES["7b"],
                           "--token-bytes", shape.kv_bytes, "--serve=--load-format=dummy",
                           *[f"--serve={word}" for word in host.options.serve]], 900, check=False)
    found = gpu_rows.last_json(text)
    if found is None:
        host.check("swap 7b", 0, 1, [f"ended with {code}: {last_lines(text)}"])
        return
    host.check("swap 7b", found["passed"], found["total"], found["failed"])
    for length, ways in found["replay"].items():
        host.measurements.append({"program": "swap.py", "id": f"replay_7b_{length}", **ways})
        host.say(f"  {length:>6} tokens: replay by swapping {ways['swap']['replay_ms']} ms, computed again {ways['again']['replay_ms']} ms")


def spec(host):
    """Speculative decoding: equal answers at fathom-tiny (ngram and the bundled draft model) and, with dummy weights, at the shapes of
    --shapes (ngram); then the speed at the 7B shape with a fixed pattern of acceptance, which dummy weights cannot give."""
    for name in ["tiny", *host.options.shapes]:
        tiny = name == "tiny"
        model = ROOT / "models/fathom-tiny" if tiny else SHAPE_FILES[name]
        serve = [f"--serve={word}" for word in [*([] if tiny else ["--load-format=dummy"]), *host.options.serve]]
        draft = ["--draft", ROOT / "models/fathom-tiny-draft"] if tiny else []
        text, code = host.run([python(), HERE / "speculation.py", "--device", host.options.device, "--model", model, *draft, *serve], 900,
                              check=False)
        found = gpu_rows.last_json(text)
        if found is None:
            host.check(f"speculation {name}", 0, 1, [f"ended with {code}: {last_lines(text)}"])
        else:
            host.check(f"speculation {name}", found["passed"], found["total"], found["failed"])
    if (host.gpu / "speculation_speed").exists():
        with Clocks(host, "speculation_speed"):
            text, _ = host.run([host.gpu / "speculation_speed", SHAPE_FILES["7b"]], 300)
        for one in gpu_rows.json_lines(text):
            host.measurements.append({"program": "speculation_speed", **one})
            host.say(f"  {one['id']:<56} {gpu_rows.number(one['value']):>10} {one['unit']}")


# -tp x -pp.
LAYOUTS = ("2x1", "1x2", "2x2")


def ranks(host):
    """Goldens and equalities of layouts of several GPUs, and ranks that are killed and stopped. The answers of -pp are those of one
    stage, to the last bit. On fewer GPUs than ranks the workers share one and take turns."""
    own = list(host.options.serve)
    try:
        for layout in host.options.layouts or LAYOUTS:
            tp, pp = (int(number) for number in layout.split("x"))
            label = f" -tp {tp} -pp {pp}"
            shared = [] if gpu_count() >= tp * pp else ["--allow-shared-device"]
            host.options.serve = [*own, "-tp", str(tp), "-pp", str(pp), *shared]
            goldens(host, label)
            equalities(host, label)
            words = ["--shared"] if shared else []
            words += [f"--stages-of={tp}"] if pp > 1 else []
            text, code = host.run([python(), HERE / "rank_faults.py", *words, *[f"--serve={word}" for word in host.options.serve]], 400,
                                  check=False)
            found = gpu_rows.last_json(text) or {"passed": 0, "total": 1, "failed": [f"ended with {code}: {last_lines(text)}"]}
            host.check(f"rank-faults{label}", found["passed"], found["total"], found["failed"])
    finally:
        host.options.serve = own


def gpu_count():
    out = subprocess.run(["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True)
    return len(out.stdout.split())


def faults(host):
    """A row whose values overflow fails alone, with the reason."""
    text, code = host.run([python(), HERE / "faults.py", "--device", host.options.device], 300, check=False)
    found = gpu_rows.last_json(text)
    if found is None:
        host.check("faults", 0, 1, [f"ended with {code}: {last_lines(text)}"])
    else:
        host.check("faults", found["passed"], found["total"], found["failed"])


def measure_decode(host, served, key):
    run, command = served.bench("step", "--sequences", 1, "--input-len", 128, "--short-output-len", 1, "--long-output-len", 129,
                                "--repeats", 3)
    host.row(f"decode_{key}_b1_ms", run["metrics"][0]["value"], command)


def measure_steps(host, served, key):
    for sequences in (8, 64, 128):
        run, command = served.bench("step", "--sequences", sequences, "--input-len", 160, "--short-output-len", 65,
                                    "--long-output-len", 193, "--repeats", 2)
        host.row(f"step_{key}_b{sequences}_ms", run["metrics"][0]["value"], command)


def measure_first_token(host, served, key):
    for tokens in (128, 512, 2048):
        run, command = served.bench("latency", "--input-len", tokens, "--output-len", 1, "--requests", 5, "--warmup", 2)
        host.row(f"ttft_{key}_{tokens}_ms", run["ttft_ms"]["median"], command)


# vLLM has this setting when it is called as a library: prompts run in large steps, while other sequences wait for their next token.
THROUGHPUT_FLAGS = ("--max-num-batched-tokens", "8192")


def measure_throughput(host, served, key, requests, input_len, output_len):
    run, command = served.bench("throughput", "--requests", requests, "--concurrency", requests, "--input-len", input_len,
                                "--output-len", output_len)
    host.row(f"throughput_{key}_{input_len}_{output_len}_tps", run["output_tokens_per_s"],
             f"{command}, served with {' '.join(THROUGHPUT_FLAGS)}")


def measure_idle(host, served, key):
    """The idle time between the events of the device while one sequence decodes."""
    words = ["latency", "--requests", 1, "--warmup", 0, "--input-len", 128, "--output-len", 1500]
    worker = threading.Thread(target=lambda: served.bench(*words))
    before = served.metrics()
    name = next((n for n in before if n.endswith("generation_tokens_total")), None)
    if name is None or not any(n.endswith("device_busy_seconds_total") for n in before):
        raise Failed("the worker's metrics have no device_busy_seconds_total")
    worker.start()
    try:
        first = before[name]
        wait_until(lambda: served.metrics()[name] > first + 50, 60, "an answer is under way")
        a = served.metrics()
        wait_until(lambda: served.metrics()[name] > a[name] + 600 or not worker.is_alive(), 60, "600 tokens more")
        b = served.metrics()
    finally:
        worker.join()
    idle = gpu_rows.idle_percent(a, b)
    if idle is None:
        raise Failed("the device was not busy by its own events")
    host.row(f"idle_{key}_b1_pct", idle, "tests/gpu/run perf-7b")


def perf(host, key, measures, *flags):
    with Clocks(host, f"perf-{key}"), Serve(host, SHAPE_FILES[key], "--load-format", "dummy", *flags) as served:
        host.say(f"perf-{key}: ready after {served.ready['start_us'] / 1e6:.2f} s")
        for measure in measures:
            try:
                measure(host, served, key)
            except Exception as failure:  # The other rows are still useful.
                host.check(f"perf-{key}", 0, 1, [f"{type(failure).__name__}: {failure}"])


QUICK = (measure_decode, measure_steps, measure_first_token, measure_idle)


def perf_7b(host):
    """All rows of the 7B shape: decode, steps, first token, idle time, throughput."""
    perf(host, "7b", QUICK)
    perf(host, "7b", [lambda h, s, k: measure_throughput(h, s, k, 1024, 128, 128),
                      lambda h, s, k: measure_throughput(h, s, k, 300, 1000, 1000)], *THROUGHPUT_FLAGS)


def perf_7b_quick(host):
    """The same without throughput."""
    perf(host, "7b", QUICK)


def ttft_7b(host):
    """Only the first tokens of the 7B shape."""
    perf(host, "7b", [measure_first_token])


def perf_13b(host):
    """Decode of the 13B shape."""
    perf(host, "13b", [measure_decode])


def perf_33b_quick(host):
    """Decode, steps and first tokens of the 33B shape."""
    perf(host, "33b", [measure_decode, measure_steps, measure_first_token])


def perf_33b(host):
    """Decode of the 33B shape, and throughput if the card has enough memory."""
    perf(host, "33b", [measure_decode])
    if host.card is not None and host.card.memory_gib > 100:
        perf(host, "33b", [lambda h, s, k: measure_throughput(h, s, k, 128, 1000, 1000)], *THROUGHPUT_FLAGS)


def load(host):
    """The time from the start of the worker to its registration, with a 7B checkpoint of safetensors in the page cache."""
    folder = host.work / "checkpoint-7b"
    host.run([python(), HERE / "make_checkpoint.py", SHAPE_FILES["7b"], folder], 400)
    words = ["bench", "startup", "--model", str(folder), "--device", host.options.device, "--repeats", "3",
             *[f"--serve-arg={word}" for word in host.options.serve]]
    text, _ = host.run([host.bin / "fathom", *words, "--json"], 400)
    values = {one["name"]: one["value"] for one in gpu_rows.last_json(text)["metrics"]}
    host.row("load_7b_s", values["worker_ms"] / 1e3, "fathom " + " ".join(words[:2]) + " --model FOLDER " + " ".join(words[4:]))
    host.say("load: " + ", ".join(f"{name} {value:.0f}" for name, value in values.items() if value >= 1) + " ms")


def gpu_bytes_of(pids):
    """The memory of these processes as the driver reports it; None if it cannot."""
    out = subprocess.run(["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"], capture_output=True,
                         text=True, timeout=30).stdout
    used = {int(a): float(b) * 2**20 for a, b in re.findall(r"^(\d+), *(\d+)$", out, re.M)}
    return sum(used[p] for p in pids if p in used) or None


def device_bytes():
    out = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True,
                         timeout=30).stdout
    return float(out.splitlines()[0]) * 2**20


def plan_error(host):
    """Compares the worker's peak memory under load, as the driver reports it, with the total of its memory plan."""
    idle = device_bytes()
    with Serve(host, SHAPE_FILES["7b"], "--load-format", "dummy") as served:
        pids = [one["pid"] for one in served.ready["workers"]]
        worker = threading.Thread(target=lambda: served.bench("throughput", "--requests", 256, "--concurrency", 256, "--output-len", 64))
        worker.start()
        samples, by_process = [], True
        while worker.is_alive():
            value = gpu_bytes_of(pids)
            by_process = by_process and value is not None
            samples.append(value if value is not None else device_bytes() - idle)
            time.sleep(0.2)
        worker.join()
        metrics = served.metrics()
        plan = gpu_rows.arenas(metrics)
        graphs = next((value for name, value in metrics.items() if name.endswith("graphs_bytes")), 0.0)
    if not plan:
        raise Failed("the worker's metrics have no memory_bytes")
    total, peak = sum(plan.values()), max(samples)
    # The plan predicts only the driver's context and the graphs; all other allocations are exact.
    context = peak - graphs - (total - sum(plan.get(name, 0) for name in ("context", "graphs")))
    host.row("plan_error_pct", abs(peak - total) / total * 100, "tests/gpu/run plan-error")
    host.measurements.append({"id": "plan_arenas", "value": total, "unit": "B", "peak": peak, "by_process": by_process, "arenas": plan,
                              "graphs_bytes": graphs, "context_bytes": context})
    host.say(f"plan-error: peak {peak / 2**20:.0f} MiB ({'process' if by_process else 'device'}), plan {total / 2**20:.0f} MiB; "
             f"graphs {graphs / 2**20:.0f}, the driver's own {context / 2**20:.0f} MiB; planned "
             + ", ".join(f"{name} {value / 2**20:.0f}" for name, value in plan.items()))
    for name, found in (("graphs", graphs), ("context", context)):
        off = abs(found - plan.get(name, 0))
        within = off <= max(64 * 2**20, 0.05 * plan.get(name, 0))
        host.check(f"plan {name}", int(within), 1, [] if within else [f"{found / 2**20:.0f} MiB, planned {plan.get(name, 0) / 2**20:.0f}"])


FAULT_FLAG_ROUNDS = 3
PEER_PARTS = {"7b": "b1,ttft,bs:8:160,bs:64:160,bs:128:160,tp:1024:128:128,tp:300:1000:1000", "13b": "b1", "33b": "b1"}


def peer(host):
    """vLLM, measured by peer_vllm.py in this run on this card."""
    if not host.options.peer_site or not host.options.peer_script:
        raise Failed("--peer-site and --peer-script are missing")
    env = {**plain_environment(), "PYTHONPATH": host.options.peer_site, "VLLM_USE_FLASHINFER_SAMPLER": "0"}
    for key in host.options.peer_shapes:
        what = host.options.peer_what or PEER_PARTS[key]
        if key == "33b" and host.card and host.card.memory_gib > 100 and not host.options.peer_what:
            what += ",tp:128:1000:1000"
        with Clocks(host, f"peer-{key}"):
            text, code = host.run([python(), host.options.peer_script, key, what], 1500, env=env, check=False)
        result = gpu_rows.last_json(text, "RESULT ")
        if result is None:
            host.check(f"peer {key}", 0, 1, [f"ended with {code}: {last_lines(text)}"])
            continue
        host.peers.update(gpu_rows.peer_rows(result))
        host.measurements.append({"id": f"peer_{key}", "value": result.get("init_s"), "unit": "s", **result})
        host.say(f"peer {key}: " + ", ".join(f"{k} {v}" for k, v in gpu_rows.peer_rows(result).items()))


def peer_attention(host):
    """FlashAttention 3 of the peer's bundle at the shapes of attention_bench and prefill_bench."""
    if not host.options.peer_site:
        raise Failed("--peer-site is missing")
    env = {**plain_environment(), "PYTHONPATH": host.options.peer_site}
    with Clocks(host, "peer-attention"):
        text, code = host.run([python(), HERE / "fa3_peer.py"], 400, env=env, check=False)
    for one in gpu_rows.json_lines(text):
        host.measurements.append({"program": "fa3_peer.py", **one})
        if one["id"] in gpu_rows.ROWS:
            host.peers[one["id"]] = one["value"]
        host.say(f"  {one['id']:<44} {gpu_rows.number(one['value']):>10} {one['unit']}  {one.get('how', '')}")
    if code != 0:
        raise Failed(f"fa3_peer.py ended with {code}: {last_lines(text)}")


def canonical_cost(host):
    """Compares the canonical kernels with the fastest others in one run: cuBLASLt's best of 16 with split-K, and FlashAttention 3."""
    if not any(one["id"].startswith("fa3_decode_") for one in host.measurements):
        peer_attention(host)
    fa3 = {one["id"]: one["value"] for one in host.measurements if one["id"].startswith("fa3_")}
    lines = []
    with Clocks(host, "canonical-cost"):
        for name in ("attention_bench", "prefill_bench", "canonical_cost_bench"):
            lines += gpu_rows.json_lines(host.run([host.gpu / name], host.options.test_timeout)[0])
    host.measurements += [{"program": "canonical_cost_bench", **one} for one in lines if one["id"] == "canonical"]
    costs = gpu_rows.canonical_costs(lines, fa3)
    for one in costs:
        host.measurements.append({"id": "canonical_cost", "value": one["pct"], "unit": "%", **one})
        host.say(f"  {one['step']:<14} ours {one['ours_us']:8.0f} us, others {one['other_us']:8.0f} us: {one['pct']:+.2f} % "
                 f"(launches one after the other {one['alone_pct']:+.2f} %); " + ", ".join(
                     f"{op} {ours:.1f}/{other:.1f}" for op, (ours, other) in one["ops"].items()))
    worst = max(costs, key=lambda one: one["pct"])
    host.row("canonical_cost_pct", worst["pct"], f"tests/gpu/run canonical-cost ({worst['step']})")


def fault_flag_cost(host):
    """Workers with and without the row fault flag, in turns, at batch 1 and 64 of the 7B shape."""
    unflagged = host.bin / "fathom-worker-unflagged"
    if not unflagged.exists():
        raise Failed("the bundle has no bin/fathom-worker-unflagged (tests/gpu/bundle --unflagged)")
    # `fathom serve` takes its binaries from its own folder and follows links, so the files are copied.
    other = host.work / "bin-unflagged"
    other.mkdir(exist_ok=True)
    for name in ("fathom", "fathom-router", "fathom-scheduler"):
        shutil.copy2(host.bin / name, other / name)
    shutil.copy2(unflagged, other / "fathom-worker")
    found = {}
    with Clocks(host, "fault-flag-cost"):
        for turn in range(FAULT_FLAG_ROUNDS):
            # The order is A B, B A, A B, ... Otherwise one of the two would always run on the warmer card.
            for flagged in ((True, False), (False, True))[turn % 2]:
                with Serve(host, SHAPE_FILES["7b"], "--load-format", "dummy", folder=host.bin if flagged else other) as served:
                    for sequences, words in ((1, ("--input-len", 128, "--short-output-len", 1, "--long-output-len", 129)),
                                             (64, ("--input-len", 160, "--short-output-len", 65, "--long-output-len", 193))):
                        run, _ = served.bench("step", "--sequences", sequences, *words, "--repeats", 3)
                        found.setdefault(sequences, {}).setdefault(flagged, []).append(run["metrics"][0]["value"])
    costs = gpu_rows.flag_costs(found)
    for sequences, cost in costs.items():
        host.measurements.append({"id": f"fault_flag_b{sequences}", "value": cost, "unit": "%", "with_ms": found[sequences][True],
                                  "without_ms": found[sequences][False]})
        host.say(f"  {sequences:>3} sequences: with {found[sequences][True]} ms, without {found[sequences][False]} ms: {cost:+.2f} %")
    host.row("fault_flag_cost_pct", max(costs.values()), "tests/gpu/run fault-flag-cost")


BEFORE_AFTER_ROUNDS = 3


def before_after(host):
    """The programs of another commit (tests/gpu/bundle --before) and this one's, in turns: ratios of medians, after over before."""
    before = host.work / "bin-before"
    if not before.exists():
        raise Failed("the bundle has no bin-before/ (tests/gpu/bundle --before FOLDER)")
    found = {}

    def add(after, name, value):
        found.setdefault(name, {}).setdefault(after, []).append(value)

    with Clocks(host, "before-after"):
        for turn in range(BEFORE_AFTER_ROUNDS):
            for after in ((False, True), (True, False))[turn % 2]:
                with Serve(host, SHAPE_FILES["7b"], "--load-format", "dummy", folder=host.bin if after else before) as served:
                    run, _ = served.bench("step", "--sequences", 1, "--input-len", 128, "--short-output-len", 1, "--long-output-len", 129,
                                          "--repeats", 3)
                    add(after, "decode_b1_ms", run["metrics"][0]["value"])
                    for sequences in (8, 64):
                        run, _ = served.bench("step", "--sequences", sequences, "--input-len", 160, "--short-output-len", 65,
                                              "--long-output-len", 193, "--repeats", 2)
                        add(after, f"step_b{sequences}_ms", run["metrics"][0]["value"])
                    for tokens in (128, 2048):
                        run, _ = served.bench("latency", "--input-len", tokens, "--output-len", 1, "--requests", 5, "--warmup", 2)
                        add(after, f"ttft_{tokens}_ms", run["ttft_ms"]["median"])
                    run, _ = served.bench("throughput", "--requests", 128, "--concurrency", 128, "--input-len", 256, "--output-len", 128)
                    add(after, "throughput_tps", run["output_tokens_per_s"])
    for name, ratio in gpu_rows.ratios(found).items():
        host.measurements.append({"id": f"before_after_{name}", "value": ratio, "unit": "ratio", "before": found[name][False],
                                  "after": found[name][True]})
        host.say(f"  {name}: before {found[name][False]}, after {found[name][True]}: {ratio:.4f}")


def peer_transformers(host):
    """Measures PyTorch transformers with a static cache and compilation, a second peer, which no row is compared with."""
    with Clocks(host, "peer-transformers"):
        text, _ = host.run([python(), HERE / "transformers_peer.py", SHAPE_FILES["7b"]], 900, env=plain_environment())
    for one in gpu_rows.json_lines(text):
        host.measurements.append({"program": "transformers_peer.py", **one})
        host.say(f"  {one['id']:<44} {gpu_rows.number(one['value']):>10} {one['unit']}")


def power(host):
    """Measures power and clocks of the 7B shape while steps of one size run. They are in the `clocks` of the results as power-SEQUENCES."""
    with Serve(host, SHAPE_FILES["7b"], "--load-format", "dummy") as served:
        for sequences in (1, 8, 32, 64, 128):
            tokens = 2000 if sequences == 1 else 800  # Several seconds of steps, of which the median is taken.
            with Clocks(host, f"power-{sequences}"):
                served.bench("throughput", "--requests", sequences, "--concurrency", sequences, "--input-len", 128,
                             "--output-len", tokens)


def table(host):
    """Only prints the table, as every run does at its end."""


# name -> (function, its time limit in seconds, whether it needs the limits of the card).
PARTS = {
    "limits": (limits, 240, False), "tests": (tests, 590, False), "sanitizer": (sanitizer, 590, False), "goldens": (goldens, 400, False),
    "equalities": (equalities, 590, False), "spec": (spec, 590, False), "faults": (faults, 300, False), "ranks": (ranks, 1500, False),
    "swap": (swap, 900, False), "bench": (bench, 500, True), "perf-7b": (perf_7b, 400, True),
    "perf-7b-quick": (perf_7b_quick, 240, True), "ttft-7b": (ttft_7b, 100, True), "perf-13b": (perf_13b, 200, True), "perf-33b": (perf_33b, 300, True),
    "perf-33b-quick": (perf_33b_quick, 200, True),
    "load": (load, 400, False), "plan-error": (plan_error, 200, False), "peer": (peer, 590, True),
    "peer-transformers": (peer_transformers, 500, True), "peer-attention": (peer_attention, 400, True),
    "canonical-cost": (canonical_cost, 500, True), "fault-flag-cost": (fault_flag_cost, 400, False),
    "before-after": (before_after, 400, False), "prefix": (gpu_prefix.prefix, 590, False), "guided": (gpu_guided.guided, 590, False), "power": (power, 200, False),
    "table": (table, 1, False),
}


def dump(host):
    (host.out / "results.json").write_text(json.dumps(host.results(), indent=1) + "\n")


