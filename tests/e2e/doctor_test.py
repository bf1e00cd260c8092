"""tests/e2e/doctor_test.py: `fathom doctor` on this machine: with good facts, a low limit, a taken port, and a port of a running cluster."""
import json
import os
import socket
import subprocess
import sys
import unittest

from cluster import BIN, SLOW, Cluster

# No port of this machine is looked at unless a test names it; the driver is another test's matter.
PORTS = ("--http-port", "--grpc-port", "--scheduler-metrics-port", "--scheduler-port", "--worker-port", "--worker-metrics-port")


def doctor(*args, wrap=(), env=None):
    quiet = [word for flag in PORTS if flag not in args for word in (flag, "0")]
    done = subprocess.run([*wrap, BIN / "fathom", "doctor", *quiet, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=30 * SLOW, env=env)
    return done.returncode, done.stdout, done.stderr


def findings(*args, **kw):
    code, out, err = doctor("--json", *args, **kw)
    assert out, err
    report = json.loads(out)
    assert report["ok"] == (code == 0), (code, out)
    return code, {one["check"]: one for one in report["findings"]}


class Doctor(unittest.TestCase):
    def test_text_and_json_agree(self):
        code, out, err = doctor()
        self.assertEqual(err, "")
        json_code, all_findings = findings()
        self.assertEqual(code, json_code)
        for check, one in all_findings.items():
            self.assertIn(f"{one['level']:<8} {check}", out)
            if one["level"] in ("warning", "error"):
                self.assertTrue(one["fix"] and one["needed"], one)

    def test_a_low_limit_of_descriptors(self):
        code, all_findings = findings(wrap=("prlimit", "--nofile=40:40"))
        self.assertEqual(code, 71)
        self.assertEqual(all_findings["descriptors"]["level"], "error")
        self.assertTrue(all_findings["descriptors"]["found"].startswith("40"), all_findings["descriptors"])
        self.assertIn("ulimit -Hn", all_findings["descriptors"]["fix"])

    def test_a_taken_port_names_its_holder(self):
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
            code, all_findings = findings("--grpc-port", str(port))
        self.assertEqual(code, 71)
        one = all_findings[f"port {port}"]
        self.assertEqual(one["level"], "error")
        self.assertIn(f"(pid {os.getpid()})", one["found"])
        self.assertIn("--grpc-port", one["fix"])
        # The holder is gone, and so is the finding.
        code, all_findings = findings("--grpc-port", str(port))
        self.assertNotIn(f"port {port}", all_findings)
        self.assertIn(str(port), all_findings["ports"]["found"])

    def test_the_port_of_a_running_cluster_is_no_error(self):
        with Cluster() as cluster:
            port = cluster.ready["grpc_port"]
            _, all_findings = findings("--grpc-port", str(port))
        self.assertEqual(all_findings[f"port {port}"]["level"], "note")
        self.assertIn("fathom-router", all_findings[f"port {port}"]["found"])

    def test_the_environment(self):
        env = {**os.environ, "http_proxy": "http://user:secret@proxy:3128", "FATHOM_PORT": "tcp://10.0.0.1:8001"}
        code, out, _ = doctor("--json", env=env)
        self.assertIn("http_proxy set", out)
        self.assertRegex(out, r"FATHOM_PORT[^\"]* set")
        self.assertNotIn("secret", out)

    def test_a_gpu_that_is_not_there(self):
        if os.path.exists("/dev/nvidiactl"):
            self.skipTest("this machine has a GPU")
        code, all_findings = findings("--device", "cuda")
        self.assertEqual(code, 71)
        self.assertEqual(all_findings["driver"]["level"], "error")
        self.assertIn("--device cpu", all_findings["driver"]["fix"])

    def test_a_folder_that_cannot_be_written(self):
        code, all_findings = findings("--run-dir", "/proc/fathom")
        self.assertEqual(code, 71)
        self.assertIn("--run-dir", all_findings["run directory"]["fix"])


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
