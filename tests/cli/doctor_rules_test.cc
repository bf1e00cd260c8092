// The rules of `fathom doctor`, on machines that do not exist: each finding has its level, a fix,
// and its part in the exit code.
#include "cli/doctor/doctor_rules.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/exit_codes.h"

namespace fathom::client {
namespace {

constexpr int64_t kTestGib = int64_t{1} << 30;

// A machine without a GPU on which nothing is wrong.
DoctorFacts GoodCpu() {
  DoctorFacts facts;
  facts.cpus = 8;
  facts.instructions = {"avx2"};
  facts.memory_available_bytes = 16 * kTestGib;
  facts.shared_memory = {
      .exists = true, .writable = true, .total_bytes = 8 * kTestGib, .free_bytes = 8 * kTestGib};
  facts.descriptors = 1 << 20;
  facts.ports = {{.port = 8000, .flag = "--http-port"}, {.port = 8001, .flag = "--grpc-port"}};
  facts.clock = {.source = "tsc", .synchronized = true};
  facts.kernel = {.somaxconn = 4096,
                  .threads_max = 100'000,
                  .pid_max = 100'000,
                  .max_map_count = 65530,
                  .overcommit_memory = 0,
                  .huge_pages = "madvise"};
  facts.run_folder = "/run/user";
  facts.run_folder_free_bytes = kTestGib;
  return facts;
}

// Two H100 with everything that they need.
DoctorFacts GoodGpus() {
  DoctorFacts facts = GoodCpu();
  facts.build = {.cuda = true, .runtime_version = 13000, .native_sms = {80, 90}, .ptx_sm = 90};
  facts.driver = {
      .device_files = true, .kernel_version = "580.95.05", .library = true, .cuda_version = 13000};
  facts.driver.gpus = {{.name = "H100", .sm = 90, .memory_bytes = 80 * kTestGib, .used_bytes = 0},
                       {.name = "H100", .sm = 90, .memory_bytes = 80 * kTestGib, .used_bytes = 0}};
  facts.nccl = {.library = true, .version = 22809};
  return facts;
}

const Finding* Find(const std::vector<Finding>& all, const std::string& check) {
  for (const Finding& finding : all) {
    if (finding.check == check) return &finding;
  }
  return nullptr;
}

// The one finding that a changed fact makes: its level, a word of what was found and one of the
// fix.
void Expect(const DoctorFacts& facts, const DoctorWish& wish, const std::string& check, Level level,
            const std::string& found, const std::string& fix) {
  const std::vector<Finding> all = Diagnosis(facts, wish);
  const Finding* const finding = Find(all, check);
  ASSERT_NE(finding, nullptr) << check << "\n" << ToText(all);
  EXPECT_EQ(finding->level, level) << ToText(all);
  EXPECT_NE(finding->found.find(found), std::string::npos) << finding->found;
  EXPECT_NE(finding->fix.find(fix), std::string::npos) << finding->fix;
  EXPECT_EQ(ExitCodeOf(all), level == Level::kError ? kExitResources : kExitOk) << ToText(all);
  for (const Finding& one : all) {
    if (one.level < Level::kWarning) continue;
    EXPECT_FALSE(one.fix.empty()) << one.check;
    EXPECT_FALSE(one.needed.empty()) << one.check;
  }
}

TEST(DoctorRulesTest, AGoodMachineHasNoWarning) {
  for (const DoctorFacts& facts : {GoodCpu(), GoodGpus()}) {
    const std::vector<Finding> all = Diagnosis(facts, {.workers = 2});
    for (const Finding& finding : all) EXPECT_LT(finding.level, Level::kWarning) << ToText(all);
    EXPECT_EQ(ExitCodeOf(all), kExitOk);
  }
}

TEST(DoctorRulesTest, AMachineWithoutGpuIsFineUnlessAGpuIsWanted) {
  DoctorFacts facts = GoodCpu();
  facts.build = GoodGpus().build;
  facts.driver.library_error = "libcuda.so.1: no such file";
  Expect(facts, {}, "driver", Level::kNote, "no NVIDIA driver", "none for the CPU");
  Expect(facts, {.device = "cuda"}, "driver", Level::kError, "no NVIDIA driver", "--device cpu");
  EXPECT_EQ(Find(Diagnosis(facts, {.device = "cpu"}), "driver"), nullptr);
}

TEST(DoctorRulesTest, ABuildWithoutCudaOnAMachineWithAGpu) {
  DoctorFacts facts = GoodGpus();
  facts.build = {};
  Expect(facts, {}, "build", Level::kWarning, "without CUDA", "-DFATHOM_CUDA=ON");
  Expect(facts, {.device = "cuda"}, "build", Level::kError, "without CUDA", "-DFATHOM_CUDA=ON");
}

TEST(DoctorRulesTest, DriversThatDoNotWork) {
  DoctorFacts old = GoodGpus();
  old.driver.cuda_version = 12040;
  Expect(old, {}, "driver", Level::kError, "CUDA 12.4", "update the NVIDIA driver");
  DoctorFacts container = GoodGpus();
  container.driver.library = false;
  Expect(container, {}, "driver", Level::kError, "580.95.05", "--gpus all");
  DoctorFacts switches = GoodGpus();
  switches.driver.init_error = 802;
  switches.driver.init_message = "CUDA_ERROR_SYSTEM_NOT_READY";
  Expect(switches, {}, "driver", Level::kError, "SYSTEM_NOT_READY", "nvidia-fabricmanager");
  DoctorFacts hung = GoodGpus();
  hung.driver.timed_out = true;
  Expect(hung, {}, "driver", Level::kError, "did not answer", "nvidia-smi");
}

TEST(DoctorRulesTest, GpusThatDoNotFit) {
  DoctorFacts old = GoodGpus();
  old.driver.gpus[0].sm = 75;
  Expect(old, {}, "gpu 0", Level::kError, "7.5", "--device cpu");
  DoctorFacts later = GoodGpus();
  later.driver.gpus[0].sm = 100;
  Expect(later, {}, "gpu 0", Level::kNote, "10.0", "compiles");
  later.build.ptx_sm = 0;
  Expect(later, {}, "gpu 0", Level::kError, "10.0", "build Fathom");
  DoctorFacts same_major = GoodGpus();
  same_major.driver.gpus[0].sm = 89;
  Expect(same_major, {}, "gpu 0", Level::kOk, "8.9", "");
  DoctorFacts used = GoodGpus();
  used.driver.gpus[1].used_bytes = 30 * kTestGib;
  Expect(used, {}, "gpu 1", Level::kWarning, "30 GiB", "nvidia-smi");
  DoctorFacts hidden = GoodGpus();
  hidden.driver.gpus.clear();
  hidden.driver.init_error = 100;
  hidden.visible_devices = "7";
  Expect(hidden, {}, "gpu", Level::kError, "CUDA_VISIBLE_DEVICES=7", "unset");
  Expect(GoodGpus(), {.workers = 4}, "gpus", Level::kError, "2 for 4", "fewer workers");
}

TEST(DoctorRulesTest, PeersAndNccl) {
  DoctorFacts facts = GoodGpus();
  facts.driver.no_peers = {{0, 1}, {1, 0}};
  Expect(facts, {}, "peer access", Level::kWarning, "GPU 0 cannot map", "topo -p2p");
  facts.nccl = {.error = "libnccl.so.2: no such file"};
  Expect(facts, {}, "nccl", Level::kError, "libnccl.so.2", "libnccl2");
  facts.nccl = {.library = true, .version = 22005};
  Expect(facts, {}, "nccl", Level::kError, "2.20.5", "upgrade");
  facts.driver.no_peers.clear();
  Expect(facts, {}, "nccl", Level::kNote, "2.20.5", "upgrade");
}

TEST(DoctorRulesTest, LimitsThatAreTooLow) {
  DoctorFacts facts = GoodCpu();
  facts.descriptors = 40;
  Expect(facts, {}, "descriptors", Level::kError, "40", "ulimit -Hn");
  facts.descriptors = 50;  // Enough for one worker, not for four.
  Expect(facts, {.workers = 4}, "descriptors", Level::kError, "50", "LimitNOFILE");
  facts.descriptors = 512;
  Expect(facts, {}, "descriptors", Level::kWarning, "512", "ulimit -Hn");
  facts = GoodCpu();
  facts.cgroup_threads_left = 20;
  Expect(facts, {}, "threads", Level::kError, "pids.max", "--pids-limit");
  facts = GoodCpu();
  facts.kernel.threads_max = 50;
  Expect(facts, {}, "threads", Level::kError, "threads-max", "sysctl");
  facts = GoodCpu();
  facts.cgroup_memory_bytes = 100 << 20;
  Expect(facts, {}, "memory", Level::kWarning, "100 MiB", "MemoryMax");
  facts = GoodCpu();
  facts.address_space_bytes = kTestGib;
  Expect(facts, {}, "address space", Level::kError, "1 GiB", "ulimit -v");
  facts = GoodCpu();
  facts.cpu_quota = 0.5;
  Expect(facts, {}, "cpus", Level::kWarning, "quota 0.50", "--cpus");
}

TEST(DoctorRulesTest, SharedMemory) {
  DoctorFacts facts = GoodCpu();
  facts.shared_memory.free_bytes = 1 << 20;
  Expect(facts, {.workers = 2}, "/dev/shm", Level::kError, "1 MiB", "--shm-size");
  Expect(facts, {.workers = 1}, "/dev/shm", Level::kOk, "1 MiB", "");
  facts.shared_memory.writable = false;
  facts.shared_memory.error = "Read-only file system";
  Expect(facts, {.workers = 2}, "/dev/shm", Level::kError, "Read-only", "remount");
  Expect(facts, {.workers = 1}, "/dev/shm", Level::kWarning, "Read-only", "remount");
  facts.shared_memory = {};
  Expect(facts, {.workers = 2}, "/dev/shm", Level::kError, "does not exist", "mount -t tmpfs");
}

TEST(DoctorRulesTest, TheKernel) {
  DoctorFacts facts = GoodCpu();
  facts.kernel.overcommit_memory = 2;
  Expect(facts, {}, "overcommit", Level::kWarning, "2", "sysctl");
  facts = GoodCpu();
  facts.kernel.max_map_count = 1000;
  Expect(facts, {}, "max_map_count", Level::kWarning, "1000", "sysctl");
  facts = GoodCpu();
  facts.kernel.somaxconn = 128;
  Expect(facts, {}, "somaxconn", Level::kNote, "128", "sysctl");
  facts = GoodCpu();
  facts.kernel.huge_pages = "never";
  Expect(facts, {}, "huge pages", Level::kNote, "off", "madvise");
  DoctorFacts gpus = GoodGpus();
  gpus.kernel.huge_pages = "never";  // Makes no difference there.
  EXPECT_EQ(Find(Diagnosis(gpus, {}), "huge pages"), nullptr);
  gpus.infiniband = true;
  gpus.locked_memory = 8 << 20;
  Expect(gpus, {}, "locked memory", Level::kWarning, "8 MiB", "LimitMEMLOCK");
}

TEST(DoctorRulesTest, Ports) {
  DoctorFacts facts = GoodCpu();
  facts.ports[1] = {.port = 8001,
                    .flag = "--grpc-port",
                    .error = "taken",
                    .taken = true,
                    .holder_pid = 77,
                    .holder = "nginx"};
  Expect(facts, {}, "port 8001", Level::kError, "nginx (pid 77)", "kill 77, or --grpc-port");
  EXPECT_EQ(Find(Diagnosis(facts, {}), "ports")->found, "free: 8000");
  facts.ports[1].holder_pid = 0;
  facts.ports[1].holder = "";
  Expect(facts, {}, "port 8001", Level::kError, "another process", "ss -ltnp");
  facts.ports[1] = {.port = 80, .flag = "--grpc-port", .error = "this user may not"};
  Expect(facts, {}, "port 80", Level::kError, "may not", "--grpc-port");
  // A cluster that runs is no error.
  facts.ports[1] = {.port = 8001,
                    .flag = "--grpc-port",
                    .error = "taken",
                    .taken = true,
                    .holder_pid = 77,
                    .holder = "fathom-router"};
  Expect(facts, {}, "port 8001", Level::kNote, "fathom-router", "--grpc-port 0");
}

TEST(DoctorRulesTest, ClockEnvironmentAndFolder) {
  DoctorFacts facts = GoodCpu();
  facts.clock.source = "hpet";
  Expect(facts, {}, "clock", Level::kWarning, "hpet", "tsc");
  facts.clock.goes_backwards = true;
  Expect(facts, {}, "clock", Level::kError, "backwards", "clocksource");
  facts = GoodCpu();
  facts.clock.synchronized = false;
  Expect(facts, {}, "time of day", Level::kNote, "not synchronized", "chrony");
  facts.proxies = {"http_proxy"};
  Expect(facts, {}, "proxies", Level::kNote, "http_proxy", "no_proxy");
  facts.fathom_variables = {"FATHOM_PORT"};
  Expect(facts, {}, "variables", Level::kNote, "FATHOM_PORT", "enableServiceLinks");
  facts.run_folder_free_bytes = 1 << 20;
  Expect(facts, {}, "run directory", Level::kWarning, "1 MiB", "--run-dir");
  facts.run_folder_error = "Permission denied";
  Expect(facts, {}, "run directory", Level::kError, "Permission denied", "--run-dir");
}

TEST(DoctorRulesTest, JsonHasEveryFinding) {
  DoctorFacts facts = GoodCpu();
  facts.descriptors = 40;
  const std::vector<Finding> all = Diagnosis(facts, {});
  const auto json = ToJson(all);
  EXPECT_EQ(json["ok"], false);
  EXPECT_EQ(json["findings"].size(), all.size());
  EXPECT_NE(ToText(all).find("1 errors"), std::string::npos);
}

}  // namespace
}  // namespace fathom::client
