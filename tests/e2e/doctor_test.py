"""tests/e2e/doctor_test.py: `fathom doctor` on this machine: with good facts, a low limit, a taken port, and a port of a running cluster."""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
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


# A driver of two GPUs as this program sees it: the C functions that it calls, with answers from the environment.
DRIVER = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int number(const char* name, int fallback) { const char* text = getenv(name); return text ? atoi(text) : fallback; }
int cuInit(unsigned flags) { while (number("FAKE_HANGS", 0)) pause(); return number("FAKE_INIT", 0); }
int cuGetErrorName(int error, const char** name) { *name = error == 802 ? "CUDA_ERROR_SYSTEM_NOT_READY" : "CUDA_ERROR_OTHER"; return 0; }
int cuDriverGetVersion(int* version) { *version = number("FAKE_VERSION", 13000); return 0; }
int cuDeviceGetCount(int* count) { *count = 2; return 0; }
int cuDeviceGet(int* device, int index) { *device = index; return 0; }
int cuDeviceGetName(char* name, int size, int device) { strncpy(name, "Fake H100", size); return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) { *value = attribute == 75 ? number("FAKE_MAJOR", 9) : 0; return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = (size_t)80 << 30; return 0; }
int cuDeviceGetPCIBusId(char* id, int size, int device) { strncpy(id, "0000:00:00.0", size); return 0; }
int cuDeviceCanAccessPeer(int* can, int a, int b) { *can = number("FAKE_PEERS", 1); return 0; }
int ncclGetVersion(int* version) { *version = number("FAKE_NCCL", 22809); return 0; }
"""


@unittest.skipIf(SLOW > 1, "a sanitizer's runtime must be the first library")
@unittest.skipUnless(shutil.which("cc"), "no C compiler")
class FakeDriver(unittest.TestCase):
    """The driver is asked through its real interface, in a library of ours in the place of libcuda.so.1 and libnccl.so.2."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        there = pathlib.Path(cls.folder.name)
        (there / "driver.c").write_text(DRIVER, encoding="utf-8")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", there / "libcuda.so.1", there / "driver.c"], check=True)
        shutil.copy(there / "libcuda.so.1", there / "libnccl.so.2")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def findings(self, **fake):
        env = {**os.environ, "LD_LIBRARY_PATH": self.folder.name, **{f"FAKE_{name}": str(value) for name, value in fake.items()}}
        return findings("--driver-timeout-s", "1", env=env)

    def test_two_good_gpus(self):
        _, found = self.findings()
        self.assertEqual((found["driver"]["level"], found["driver"]["found"][:13]), ("ok", "for CUDA 13.0"))
        self.assertIn("Fake H100, compute capability 9.0, 80 GiB", found["gpu 1"]["found"])
        self.assertEqual((found["peer access"]["level"], found["nccl"]["level"]), ("ok", "ok"))
        self.assertEqual(found["nccl"]["found"], "version 2.28.9")

    def test_faults(self):
        for fake, check, level, fix in (({"INIT": 802}, "driver", ("error", "note"), "nvidia-fabricmanager"),
                                        ({"MAJOR": 7}, "gpu 0", ("error",), "--device cpu"),
                                        ({"PEERS": 0}, "peer access", ("warning",), "topo -p2p"),
                                        ({"PEERS": 0, "NCCL": 22005}, "nccl", ("error",), "libnccl2"),
                                        ({"HANGS": 1}, "driver", ("error",), "nvidia-smi")):
            with self.subTest(fake=fake):
                code, found = self.findings(**fake)
                self.assertIn(found[check]["level"], level)
                self.assertIn(fix, found[check]["fix"])
                if found[check]["level"] == "error":
                    self.assertEqual(code, 71)


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
