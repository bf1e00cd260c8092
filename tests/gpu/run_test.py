"""tests/gpu/run without a GPU. The tests check how it reads the output of programs and computes rows, and that a failed part does not
stop the others. The programs are small scripts that print what the real ones print."""
import argparse
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest
import unittest.mock

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
import collect  # noqa: E402
import gpu_host  # noqa: E402
import gpu_parts  # noqa: E402
import gpu_rows  # noqa: E402
import gpu_sanitizer  # noqa: E402
import make_checkpoint  # noqa: E402


def module(path, name):
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    found = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(found)
    return found


run = module(HERE / "run", "gpu_run")

GOOD = "[==========] 3 tests from 1 test suite ran. (5 ms total)\n[  PASSED  ] 3 tests.\n"
BAD = """x_gpu_test.cu:12: Failure
Expected equality of these values:
  3
  4
[  FAILED  ] Skinny.Bits/1, where GetParam() = 3 (0 ms)
[==========] 3 tests from 1 test suite ran. (5 ms total)
[  PASSED  ] 2 tests.
[  FAILED  ] 1 test, listed below:
[  FAILED  ] Skinny.Bits/1, where GetParam() = 3
"""


class Rows(unittest.TestCase):
    def setUp(self):
        self.shapes = {key: gpu_rows.Shape(json.loads((ROOT / f"models/shapes/{name}.json").read_text()))
                       for key, name in gpu_rows.SHAPES.items()}
        self.card = gpu_rows.Card(3.10, 781, 79.6)

    def test_floors_are_those_worked_out_by_hand(self):
        for row, want, within in (("decode_7b_b1_ms", 4.19, 0.005), ("decode_13b_b1_ms", 8.31, 0.03), ("decode_33b_b1_ms", 21.36, 0.05),
                                  ("step_7b_b8_ms", 4.55, 0.01), ("step_7b_b64_ms", 7.13, 0.04), ("step_7b_b128_ms", 10.07, 0.04),
                                  ("ttft_7b_128_ms", 4.19, 0.01), ("ttft_7b_2048_ms", 33.2, 0.2),
                                  ("throughput_7b_128_128_tps", 15900, 300), ("throughput_7b_1000_1000_tps", 3300, 50),
                                  ("attn_decode_mha_tbs", 3.10, 0), ("attn_prefill_4k_tflops", 781, 0)):
            self.assertAlmostEqual(gpu_rows.floor_of(row, self.shapes, self.card), want, delta=within, msg=row)
        self.assertIsNone(gpu_rows.floor_of("load_7b_s", self.shapes, self.card))
        self.assertIsNone(gpu_rows.floor_of("decode_7b_b1_ms", self.shapes, None))
        for row in gpu_rows.ROWS:
            gpu_rows.floor_of(row, self.shapes, self.card)

    def test_a_peers_names(self):
        rows = gpu_rows.peer_rows({"shape": "7b", "import_s": 9, "decode_b1_ms": 5.81, "ttft_512_ms": [15.1, 15.9], "bs:64:160": 9.43,
                                   "bs:64:1000": 1, "tp:1024:128:128": 9764.0})
        self.assertEqual(rows, {"decode_7b_b1_ms": 5.81, "ttft_7b_512_ms": 15.9, "step_7b_b64_ms": 9.43, "throughput_7b_128_128_tps": 9764.0})
        self.assertLessEqual(set(rows), set(gpu_rows.ROWS))

    def test_json_among_other_lines(self):
        text = 'x\n{"id": "a", "value": 1}\n{broken\n{"no": "id"}\nRESULT {"shape": "7b"}\n'
        self.assertEqual(gpu_rows.json_lines(text), [{"id": "a", "value": 1}])
        self.assertEqual(gpu_rows.last_json(text, "RESULT "), {"shape": "7b"})
        self.assertEqual(gpu_rows.last_json(text), {"no": "id"})
        self.assertIsNone(gpu_rows.last_json("nothing"))

    def test_counts_of_googletest(self):
        self.assertEqual(gpu_rows.gtest_counts(GOOD, 0), (3, 0, []))
        self.assertEqual(gpu_rows.gtest_counts(BAD, 1), (2, 1, ["Skinny.Bits/1"]))
        self.assertEqual(gpu_rows.gtest_counts("no device\n", 70), (0, 1, ["ended with 70"]))
        self.assertEqual(gpu_rows.gtest_counts(GOOD, 139), (3, 1, ["ended with 139"]))
        self.assertEqual(gpu_rows.gtest_counts("", 0), (0, 1, ["ended with 0"]))
        skipped = "[  SKIPPED ] Table.Bits (0 ms)\n[==========] 2 tests ran.\n[  PASSED  ] 1 test.\n[  SKIPPED ] 1 test.\n"
        self.assertEqual(gpu_rows.gtest_counts(skipped, 0), (1, 1, ["Table.Bits skipped"]))

    def test_names_of_googletest(self):
        text = "Running main() from gtest_main.cc\nSkinny/0.  # TypeParam = __nv_bfloat16\n  Bits\n  Odd\nPlan.\n  Rows/3  # GetParam() = 3\n"
        self.assertEqual(gpu_rows.gtest_names(text), ["Skinny/0.Bits", "Skinny/0.Odd", "Plan.Rows/3"])

    def test_metrics(self):
        page = ('# HELP x y\nfathom_worker_device_busy_seconds_total 3.5\nfathom_worker_device_idle_seconds_total{rank="0"} 0.25\n'
                'fathom_worker_memory_bytes{arena="weights"} 1.3e+10\nfathom_worker_memory_bytes{arena="kv"} 5e+10\n')
        a = gpu_rows.metrics(page)
        b = gpu_rows.metrics(page.replace(" 3.5", " 4.49").replace(" 0.25", " 0.26"))
        self.assertAlmostEqual(gpu_rows.idle_percent(a, b), 1.0)
        self.assertIsNone(gpu_rows.idle_percent(a, a))
        self.assertEqual(gpu_rows.arenas(a), {"weights": 1.3e10, "kv": 5e10})

    def test_what_canonical_arithmetic_costs(self):
        def product(step, rows, op, ours, alone, other):
            return {"id": "canonical", "step": step, "rows": rows, "op": op, "ours_us": ours, "alone_us": alone, "other_us": other}
        lines = [product(step, rows, op, 10, 12, 10) for step, rows in (("decode", 1), ("prefill", 2048))
                 for op in gpu_rows.CANONICAL_OPS if op != "attention"]
        lines += [{"id": "attn_decode_1x290", "value": 6, "us": 6, "overlapped_us": 5}, {"id": "attn_prefill_2k_tflops", "value": 1, "us": 20}]
        costs = gpu_rows.canonical_costs(lines, {"fa3_decode_1_us": 10, "fa3_prefill_2048_us": 10})
        # 30 layers of four GEMMs and attention, and an LM head.
        self.assertEqual([one["step"] for one in costs], ["decode 1", "prefill 2048"])
        self.assertAlmostEqual(costs[0]["pct"], ((30 * 45 + 10) / 1510 - 1) * 100)
        self.assertAlmostEqual(costs[0]["alone_pct"], ((30 * 54 + 12) / 1510 - 1) * 100)
        self.assertAlmostEqual(costs[1]["pct"], ((30 * 60 + 10) / 1510 - 1) * 100)
        with self.assertRaises(KeyError):  # A sum with a missing part must fail.
            gpu_rows.canonical_costs(lines, {"fa3_decode_1_us": 10})

    def test_what_the_fault_flag_costs(self):
        costs = gpu_rows.flag_costs({1: {True: [5.0, 5.05, 9.0], False: [5.0, 5.0, 5.1]}, 64: {True: [8.0], False: [8.0]}})
        self.assertAlmostEqual(costs[1], 1.0)
        self.assertAlmostEqual(costs[64], 0.0)

    def test_ratios_are_after_over_before(self):
        self.assertEqual(gpu_rows.ratios({"step_ms": {False: [4.0, 5.0, 4.0], True: [2.0, 9.0, 2.0]}}), {"step_ms": 0.5})

    def test_merging_keeps_a_peer_to_its_gpu(self):
        def row(name, value, peer=None):
            return {"id": name, "value": value, "unit": "ms", "floor": 4.0, "peer": peer, "commit": "c", "command": "d"}
        ours = {"card": "h100", "gpu_uuid": "A", "rows": [row("step_7b_b8_ms", 5.0), row("decode_7b_b1_ms", 4.4)]}
        peers = {"card": "h100", "gpu_uuid": "A", "rows": [], "peers": {"decode_7b_b1_ms": 5.8}}
        other = {"card": "h100", "gpu_uuid": "B", "rows": [], "peers": {"step_7b_b8_ms": 6.5}}
        merged = gpu_rows.merge([ours, peers, other])
        self.assertEqual([(r["id"], r["peer"]) for r in merged], [("decode_7b_b1_ms", 5.8), ("step_7b_b8_ms", None)])
        again = gpu_rows.merge([ours, {**ours, "rows": [row("decode_7b_b1_ms", 4.3)]}, peers])
        self.assertEqual([r["value"] for r in again], [4.3, 5.0])
        result = collect.collected([ours, peers])
        self.assertEqual((result["card"], list(result["rows"][0])), ("h100", list(collect.FIELDS)))
        with self.assertRaises(SystemExit):
            collect.collected([ours, {**peers, "card": "h200"}])
        text = gpu_rows.table(merged)
        self.assertRegex(text, r"decode_7b_b1_ms +4\.4 +4 +91% +5\.8 +1\.32")
        self.assertRegex(text, r"step_7b_b8_ms +5 +4 +80% +- +-")


class Checkpoint(unittest.TestCase):
    def test_a_small_one_is_sound(self):
        config = json.loads((ROOT / "models/fathom-tiny/config.json").read_text())
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "config.json"
            source.write_text(json.dumps(config))
            subprocess.run([sys.executable, HERE / "make_checkpoint.py", source, folder], check=True, capture_output=True)
            index = json.loads((pathlib.Path(folder) / "model.safetensors.index.json").read_text())
            data = (pathlib.Path(folder) / "model-00001-of-00001.safetensors").read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + size])
        self.assertEqual(set(header), set(index["weight_map"]))
        self.assertEqual(len(data), 8 + size + index["metadata"]["total_size"])
        self.assertEqual(header["lm_head.weight"]["shape"], [config["vocab_size"], config["hidden_size"]])
        words = struct.unpack("<1000H", data[8 + size:8 + size + 2000])
        for word in words:
            value = abs(struct.unpack("<f", struct.pack("<I", word << 16))[0])
            self.assertTrue(2**-7 <= value < 2**-6, hex(word))
        self.assertTrue(any(word & 0x8000 for word in words) and any(not word & 0x8000 for word in words))

    def test_shards_hold_everything_once(self):
        config = json.loads((ROOT / "models/shapes/deepseek-llm-7b.json").read_text())
        parts = make_checkpoint.shards(make_checkpoint.tensors(config))
        self.assertEqual([one for part in parts for one in part], list(make_checkpoint.tensors(config)))
        self.assertGreater(len(parts), 1)


class Runs(unittest.TestCase):
    """Runs the script itself, on a bundle of fake programs."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.tree = self.folder / "tree"
        (self.tree / "gpu").mkdir(parents=True)
        (self.tree / "COMMIT").write_text("abc\n")

    def program(self, name, text, code=0):
        path = self.tree / "gpu" / name
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {code}\n")
        path.chmod(0o755)

    def run_parts(self, *args):
        bundle, out = self.folder / "bundle.tar.xz", self.folder / "out"
        with tarfile.open(bundle, "w:xz") as tar:
            tar.add(self.tree, ".")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = run.main([*args, "--bundle", str(bundle), "--out", str(out), "--work", str(self.folder / "work"), "--device", "cpu"])
        return code, printed.getvalue(), json.loads((out / "results.json").read_text())

    def test_tests_are_counted_and_the_failed_shown(self):
        self.program("good_gpu_test", GOOD)
        self.program("x_gpu_test", BAD, 1)
        self.program("y_bench", "")
        code, printed, results = self.run_parts("tests")
        self.assertEqual(code, 1)
        self.assertIn("FAIL tests: 5 of 6", printed)
        self.assertIn("x_gpu_test: Skinny.Bits/1", printed)
        self.assertEqual(results["commit"], "abc")
        code, printed, _ = self.run_parts("tests", "--only", "good")
        self.assertEqual(code, 0, printed)

    def test_one_part_failing_leaves_the_others(self):
        self.program("a_bench", '{"id": "attn_decode_mha_tbs", "value": 2.9, "unit": "TB/s"}\n{"id": "other", "value": 1, "unit": "us"}\n')
        self.program("card_bench", '{"id": "read_tbs", "value": 3.0, "unit": "TB/s"}\n')
        parts, gpu_parts.PARTS["limits"] = gpu_parts.PARTS["limits"], (self.limits, 10, False)
        self.addCleanup(gpu_parts.PARTS.__setitem__, "limits", parts)
        code, printed, results = self.run_parts("tests", "bench", "table")
        self.assertEqual(code, 1)  # There are no tests in this bundle.
        self.assertEqual([r["id"] for r in results["rows"]], ["read_tbs", "attn_decode_mha_tbs"])
        self.assertEqual(results["rows"][1]["floor"], 3.0)
        self.assertEqual(len(results["measurements"]), 2)
        self.assertRegex(printed, r"attn_decode_mha_tbs +2\.9 +3 +97%")
        self.assertIn("failed: tests", printed.splitlines()[-1])

    def test_canonical_cost_is_the_larger_of_its_steps(self):
        ops = [op for op in gpu_rows.CANONICAL_OPS if op != "attention"]
        line = '{{"id": "canonical", "value": 0, "step": "decode", "rows": {}, "op": "{}", "ours_us": {}, "alone_us": 11, "other_us": 10}}\n'
        self.program("canonical_cost_bench", "".join(line.format(rows, op, ours) for rows, ours in ((1, 9), (64, 10.2)) for op in ops))
        self.program("attention_bench", "".join(f'{{"id": "attn_decode_{n}x290", "value": 9, "us": 9, "overlapped_us": 9}}\n' for n in (1, 64)))
        self.program("prefill_bench", "")
        host = gpu_host.Host(self.tree, self.folder, argparse.Namespace(serve=[], device="cpu", test_timeout=10, peer_site=None))
        with contextlib.redirect_stdout(io.StringIO()):
            with self.assertRaises(gpu_host.Failed):
                gpu_parts.canonical_cost(host)  # There are neither the peer's figures nor its bundle.
            host.measurements = [{"id": f"fa3_decode_{n}_us", "value": 9} for n in (1, 64)]
            gpu_parts.canonical_cost(host)
        self.assertEqual([(row["id"], row["command"]) for row in host.rows],
                         [("canonical_cost_pct", "tests/gpu/run canonical-cost (decode 64)")])
        self.assertAlmostEqual(host.rows[0]["value"], (121 * 10.2 + 270) / (121 * 10 + 270) * 100 - 100)

    @staticmethod
    def limits(host):
        host.card = gpu_rows.Card(3.0, 700, 80)
        host.row("read_tbs", 3.0, "fake")

    def test_a_part_that_hangs_is_stopped_with_its_children(self):
        self.program("slow_gpu_test", "", 0)
        (self.tree / "gpu/slow_gpu_test").write_text("#!/bin/sh\nsleep 60 & wait\n")
        code, printed, results = self.run_parts("tests", "--limit-s", "1")
        self.assertEqual(code, 1)
        self.assertIn("stopped after 1 s", results["checks"][0]["notes"][0])

    def test_programs_are_told_where_the_tree_is(self):
        self.program("data_gpu_test", "")
        (self.tree / "gpu/data_gpu_test").write_text(f'#!/bin/sh\ntest -f "$FATHOM_SOURCE_DIR/models/fathom-tiny/config.json" && cat <<E\n{GOOD}E\n')
        _, printed, _ = self.run_parts("tests")
        self.assertIn("3 of 3", printed)

    def test_a_program_that_hangs_is_one_failure(self):
        self.program("good_gpu_test", GOOD)
        self.program("slow_gpu_test", "")
        (self.tree / "gpu/slow_gpu_test").write_text("#!/bin/sh\nexec sleep 60\n")
        code, printed, _ = self.run_parts("tests", "--test-timeout", "1")
        self.assertIn("FAIL tests: 3 of 4", printed)
        self.assertIn("ended with 124", printed)

    SANITIZER = """#!/bin/sh
    launch() { echo "========= Launch #$1$2"; echo "=========   Kernel: $3"; echo "=========   Grid:   ($4, 1, 1)"; }
    dump() { launch 1 "$1" FillNormalReference 8; launch 2 "$2" MediumKernel 8; launch 3 "$3" MediumKernel 8; launch 4 "$4" MediumKernel 9; }
    left=' (filtered: launch number above limit)'
    case "$*" in
      */bin/true*) echo 'Error: before first instrumented API call'; exit 255 ;;
      *memcheck*Bits*) [ "$FATHOM_SANITIZED" = 1 ] || exit 9 ;;
      *memcheck*Odd*) echo 'Error: out of bounds'; exit 9 ;;
      *NoSuchKernel*Bits*) dump "$left" "$left" "$left" "$left"; exit 9 ;;
      *launch-skip\ 1\ *Bits*) dump "$left" "" "$left" "$left"; echo '[  PASSED  ] 1 test.'
          echo 'RACECHECK SUMMARY: 4 hazards displayed (0 errors, 0 warnings)'; exit 9 ;;
      *racecheck*Bits*) exec sleep 60 ;;
      *) echo 'Error: before first instrumented API call'; echo '[  PASSED  ] 1 test.'; exit 255 ;;
    esac
    """

    def test_the_sanitizer_says_of_each_test_what_became_of_it(self):
        self.program("a_gpu_test", "S/0.\n  Bits\n  Odd\nS/1.\n  Bits\n")
        (self.tree / "sanitizer").mkdir()
        tool = self.tree / "sanitizer/compute-sanitizer"
        tool.write_text(self.SANITIZER.replace("    #!", "#!"))
        tool.chmod(0o755)
        code, printed, results = self.run_parts("sanitizer", "--sanitizer-test-s", "1")
        outcomes = {(m["tool"], m["test"]): m["outcome"] for m in results["measurements"]}
        self.assertEqual(outcomes, {("memcheck", "a_gpu_test S/0.Bits"): "clean", ("memcheck", "a_gpu_test S/0.Odd"): "reported",
                                    ("racecheck", "a_gpu_test S/0.Bits"): "clean in single launches",
                                    ("racecheck", "a_gpu_test S/0.Odd"): "clean"})
        # Two of our launches differ in kernel or grid; the other of them does not end.
        self.assertIn("launches [2] of those of [2, 4] chosen from 4", printed)
        self.assertEqual(code, 1)
        self.assertIn("FAIL sanitizer_memcheck: 1 of 2", printed)
        self.assertIn("out of bounds", printed)
        # A later run takes up what was not clean, and what it does not begin changes nothing.
        earlier = self.folder / "earlier.json"
        earlier.write_text(json.dumps(results))
        _, _, again = self.run_parts("sanitizer", "--sanitizer-s", "-1", "--sanitizer-done", str(earlier))
        self.assertEqual([(m["tool"], m["test"], m["outcome"]) for m in again["measurements"]], [("memcheck", "a_gpu_test S/0.Odd", "not begun")])
        kept = gpu_sanitizer.merge_outcomes([], [results])
        self.assertEqual(len(kept), 4)
        self.assertEqual(gpu_sanitizer.merge_outcomes(kept, [again]), kept)
        fixed = {**again, "commit": "def", "measurements": [{**again["measurements"][0], "outcome": "clean"}]}
        self.assertEqual([one["outcome"] for one in gpu_sanitizer.merge_outcomes(kept, [fixed]) if one["commit"] == "def"], ["clean"])

    def test_a_race_in_a_single_launch_is_reported(self):
        self.program("a_gpu_test", "S.\n  Bits\n")
        (self.tree / "sanitizer").mkdir()
        tool = self.tree / "sanitizer/compute-sanitizer"
        tool.write_text(self.SANITIZER.replace("    #!", "#!").replace("0 errors", "1 errors"))
        tool.chmod(0o755)
        _, printed, _ = self.run_parts("sanitizer", "--sanitizer-test-s", "1", "--sanitizer-tools", "racecheck")
        self.assertIn("FAIL sanitizer_racecheck: 0 of 1", printed)
        self.assertIn("launch 2 ended with 9", printed)

    def test_launches_are_chosen_from_the_first_to_the_last_that_differ(self):
        launches = [(n, (f"Kernel{n // 2}", "(1, 1, 1)", ""), True) for n in range(2, 40)] + [(40, ("RmsNormReference", "", ""), True)]
        numbers = gpu_sanitizer.chosen(launches)
        self.assertEqual((numbers[0], numbers[-1], len(numbers)), (2, 38, gpu_sanitizer.LAUNCHES_MAX))
        self.assertEqual(gpu_sanitizer.chosen(launches[:1]), [2])
        self.assertEqual(gpu_sanitizer.chosen([]), [])

    def test_a_sanitizer_that_cannot_run_programs_is_not_taken(self):
        self.program("a_gpu_test", "S.\n  Bits\n")
        (self.tree / "sanitizer").mkdir()
        tool = self.tree / "sanitizer/compute-sanitizer"
        tool.write_text("#!/bin/sh\necho \"Error: process didn't terminate successfully\"\nexit 255\n")
        tool.chmod(0o755)
        with unittest.mock.patch("shutil.which", return_value=None):
            code, printed, _ = self.run_parts("sanitizer")
        self.assertEqual(code, 1)
        self.assertIn("no compute-sanitizer works", printed)

    def test_limits_come_first_and_names_are_checked(self):
        self.assertEqual(run.with_limits(["tests", "perf-7b", "tests"]), ["limits", "tests", "perf-7b"])
        self.assertEqual(run.with_limits(["tests"]), ["tests"])
        self.assertEqual([run.log_name(i, 7, f"p{i}") for i in (0, 3, 4, 6)], ["p0.txt", "p3.txt", "rest.txt", "rest.txt"])
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            run.arguments(["no-such-part"])
        self.assertEqual(run.arguments([]).parts, ["limits", "tests", "goldens", "equalities"])
        options = run.arguments(["perf-7b", "--serve=--max-num-seqs=64", "peer", "--peer-site", "s"])
        self.assertEqual((options.parts, options.serve, options.peer_site), (["perf-7b", "peer"], ["--max-num-seqs=64"], "s"))

    def test_the_bench_parts_ask_for_what_the_table_says(self):
        asked = []

        class Served:
            def bench(self, *args, **_):
                asked.append(args)
                return {"metrics": [{"value": 4.5}], "ttft_ms": {"median": 9.0}, "output_tokens_per_s": 9000.0}, "fathom bench"
        host = gpu_host.Host(self.tree, self.folder, argparse.Namespace(serve=[], device="cpu"))
        host.card = gpu_rows.Card(3.1, 781, 79.6)
        gpu_parts.measure_decode(host, Served(), "7b")
        gpu_parts.measure_steps(host, Served(), "7b")
        gpu_parts.measure_first_token(host, Served(), "7b")
        gpu_parts.measure_throughput(host, Served(), "7b", 300, 1000, 1000)
        got = {row["id"]: row["value"] for row in host.rows}
        self.assertEqual(got, {"decode_7b_b1_ms": 4.5, "step_7b_b8_ms": 4.5, "step_7b_b64_ms": 4.5, "step_7b_b128_ms": 4.5, "ttft_7b_128_ms": 9.0,
                               "ttft_7b_512_ms": 9.0, "ttft_7b_2048_ms": 9.0, "throughput_7b_1000_1000_tps": 9000.0})
        self.assertLessEqual(set(got), set(gpu_rows.ROWS))
        self.assertIn(("step", "--sequences", 64, "--input-len", 160, "--short-output-len", 65, "--long-output-len", 193, "--repeats", 2), asked)


if __name__ == "__main__":
    unittest.main(verbosity=2)
