#include <fmt/format.h>

#include <algorithm>

#include "cli/doctor/doctor_rules.h"
#include "common/flag_names.h"

namespace fathom::client {
namespace {

constexpr int32_t kSmMin = 80;
constexpr int32_t kNcclMin = 22800;       // worker/comm/cuda/nccl_library.h.
constexpr int32_t kNoDevice = 100;        // CUDA_ERROR_NO_DEVICE; AddGpus reports it.
constexpr int32_t kSystemNotReady = 802;  // CUDA_ERROR_SYSTEM_NOT_READY.
constexpr int64_t kUsedBytesMax = int64_t{1} << 30;

std::string CudaVersion(int32_t number) {
  return fmt::format("{}.{}", number / 1000, number % 1000 / 10);
}

std::string NcclVersion(int32_t number) {
  return fmt::format("{}.{}.{}", number / 10000, number / 100 % 100, number % 100);
}

std::string SmText(int32_t sm) { return fmt::format("{}.{}", sm / 10, sm % 10); }

// Whether the machine has, or should have, a GPU: then a fault of the driver is an error even if
// workers could compute on the CPU.
bool ExpectsGpu(const DoctorFacts& facts, const DoctorWish& wish) {
  return wish.device == "cuda" || (wish.device == "auto" && (facts.driver.device_files ||
                                                             !facts.driver.kernel_version.empty()));
}

void AddBuild(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all) {
  const BuildFacts& build = facts.build;
  if (build.cuda) {
    all->push_back({"build", Level::kOk,
                    fmt::format(
                        "with CUDA {}, machine code for compute capability {}{}",
                        CudaVersion(build.runtime_version),
                        [&] {
                          std::string list;
                          for (const int32_t sm : build.native_sms) {
                            list += (list.empty() ? "" : ", ") + SmText(sm);
                          }
                          return list;
                        }(),
                        build.ptx_sm > 0 ? " and code that later devices compile" : "")});
    return;
  }
  const bool wanted = ExpectsGpu(facts, wish);
  all->push_back({"build",
                  wish.device == "cuda" ? Level::kError
                  : wanted              ? Level::kWarning
                                        : Level::kNote,
                  "without CUDA: workers compute on the CPU",
                  wanted ? "a build with CUDA for the GPU of this machine" : "",
                  wanted ? "install the CUDA toolkit 13, then: cmake --preset release "
                           "-DFATHOM_CUDA=ON && cmake --build build/release"
                         : ""});
}

// Returns false if there is nothing to say of the GPUs themselves.
bool AddDriver(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all) {
  const DriverFacts& driver = facts.driver;
  const Level bad = ExpectsGpu(facts, wish) ? Level::kError : Level::kNote;
  const std::string needed =
      facts.build.cuda
          ? fmt::format("a driver for CUDA {} or later", CudaVersion(facts.build.runtime_version))
          : "a driver, only for workers on a GPU";
  if (driver.timed_out) {
    all->push_back({"driver", Level::kError, "the NVIDIA driver did not answer in time",
                    "an answer within seconds",
                    "look at `nvidia-smi` and `dmesg | grep -i nvrm`; a driver that hangs needs a "
                    "reset of the GPU or a reboot"});
    return false;
  }
  if (!driver.library) {
    const bool kernel = driver.device_files || !driver.kernel_version.empty();
    all->push_back(
        {"driver", bad,
         kernel ? fmt::format("the kernel has an NVIDIA driver {}, but libcuda.so.1 cannot be "
                              "opened ({})",
                              driver.kernel_version, driver.library_error)
                : "no NVIDIA driver",
         needed,
         kernel ? "install the driver's libraries (libcuda1); in a container: docker run --gpus "
                  "all, or resources.limits nvidia.com/gpu of a pod"
         : bad == Level::kError
             ? "apt-get install nvidia-driver (or the vendor's package), or use --device cpu"
             : "none for the CPU; for a GPU install the vendor's driver"});
    return false;
  }
  if (driver.init_error != 0 && driver.init_error != kNoDevice) {
    all->push_back(
        {"driver", bad,
         fmt::format("cuInit fails: {} ({})", driver.init_message, driver.init_error),
         "a driver that starts",
         driver.init_error == kSystemNotReady
             ? "start the fabric manager of the NVLink switches: systemctl start "
               "nvidia-fabricmanager (its version must be the driver's)"
             : "look at `nvidia-smi`; in a container: docker run --gpus all; after an update of "
               "the driver: reboot. CUDA_VISIBLE_DEVICES may also hide every GPU"});
    return false;
  }
  if (facts.build.cuda && driver.cuda_version / 1000 < facts.build.runtime_version / 1000) {
    all->push_back({"driver", bad,
                    fmt::format("it is for CUDA {}", CudaVersion(driver.cuda_version)), needed,
                    "update the NVIDIA driver (nvidia-smi shows its version), or use --device "
                    "cpu"});
    return true;
  }
  all->push_back(
      {"driver", Level::kOk,
       fmt::format("for CUDA {}{}", CudaVersion(driver.cuda_version),
                   driver.kernel_version.empty() ? std::string()
                                                 : ", kernel module " + driver.kernel_version)});
  return true;
}

void AddGpus(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all) {
  const std::vector<GpuFacts>& gpus = facts.driver.gpus;
  if (gpus.empty()) {
    all->push_back(
        {"gpu", ExpectsGpu(facts, wish) ? Level::kError : Level::kNote,
         facts.visible_devices ? fmt::format("the driver shows no GPU with CUDA_VISIBLE_DEVICES={}",
                                             *facts.visible_devices)
                               : "the driver shows no GPU",
         "one GPU for each worker",
         facts.visible_devices ? "unset CUDA_VISIBLE_DEVICES, or name GPUs of `nvidia-smi -L`"
                               : "look at `nvidia-smi -L`, or use --device cpu"});
    return;
  }
  for (size_t i = 0; i < gpus.size(); ++i) {
    const GpuFacts& gpu = gpus[i];
    Finding finding{fmt::format("gpu {}", i), Level::kOk,
                    fmt::format("{}, compute capability {}, {}", gpu.name, SmText(gpu.sm),
                                FormatBytes(gpu.memory_bytes))};
    const bool native =
        std::ranges::find(facts.build.native_sms, gpu.sm) != facts.build.native_sms.end();
    const bool same_major = std::ranges::any_of(
        facts.build.native_sms, [&](int32_t sm) { return sm / 10 == gpu.sm / 10 && sm <= gpu.sm; });
    if (gpu.sm < kSmMin) {
      finding.level = i == 0 ? Level::kError : Level::kWarning;
      finding.needed = "compute capability 8.0 or later";
      finding.fix = "hide it (CUDA_VISIBLE_DEVICES), or use --device cpu";
    } else if (facts.build.cuda && !native && !same_major) {
      const bool compiles = facts.build.ptx_sm > 0 && facts.build.ptx_sm <= gpu.sm;
      finding.level = compiles ? Level::kNote : Level::kError;
      finding.needed = "machine code for this device";
      finding.fix = compiles ? "none: the driver compiles the kernels at the first start, which "
                               "takes minutes, and keeps them in ~/.nv/ComputeCache"
                             : "build Fathom on this machine, or use --device cpu";
    } else if (gpu.used_bytes.value_or(0) > kUsedBytesMax) {
      finding.level = Level::kWarning;
      finding.found +=
          fmt::format(", of which other processes use {}", FormatBytes(*gpu.used_bytes));
      finding.needed = "a GPU of its own for each worker";
      finding.fix =
          "end those processes (`nvidia-smi` lists them), or lower "
          "--gpu-memory-utilization";
    }
    all->push_back(std::move(finding));
  }
  if (std::ssize(gpus) < wish.workers) {
    all->push_back({"gpus", Level::kError,
                    fmt::format("{} for {} workers", gpus.size(), wish.workers),
                    "one GPU for each worker", "start fewer workers (-tp, -pp, -dp)"});
  }
}

void AddPeers(const DoctorFacts& facts, std::vector<Finding>* all) {
  if (facts.driver.gpus.size() < 2) return;
  if (facts.driver.no_peers.empty()) {
    all->push_back({"peer access", Level::kOk, "every GPU can map the memory of every other one"});
    return;
  }
  const auto [a, b] = facts.driver.no_peers.front();
  all->push_back({"peer access", Level::kWarning,
                  fmt::format("GPU {} cannot map the memory of GPU {} ({} such pairs)", a, b,
                              facts.driver.no_peers.size()),
                  "peer access within a group; without it NCCL connects the ranks, more slowly",
                  "nvidia-smi topo -p2p r names the cause; on bare metal switch the IOMMU or ACS "
                  "off, in a virtual machine give all GPUs of a group to one guest"});
}

void AddNccl(const DoctorFacts& facts, std::vector<Finding>* all) {
  const bool needed = !facts.driver.no_peers.empty();
  if (!facts.nccl.library) {
    if (facts.driver.gpus.empty()) return;  // A machine without GPUs needs no NCCL.
    all->push_back({"nccl", needed ? Level::kError : Level::kNote,
                    fmt::format("libnccl.so.2 cannot be opened ({})", facts.nccl.error),
                    needed ? "NCCL 2.28 or later, because GPUs cannot map each other's memory"
                           : "NCCL 2.28 or later, only for groups over several hosts",
                    "apt-get install libnccl2 (NVIDIA's repository), or put its folder into "
                    "LD_LIBRARY_PATH"});
  } else if (facts.nccl.version < kNcclMin) {
    all->push_back({"nccl", needed ? Level::kError : Level::kNote,
                    "version " + NcclVersion(facts.nccl.version), "2.28 or later",
                    "apt-get install --only-upgrade libnccl2"});
  } else {
    all->push_back({"nccl", Level::kOk, "version " + NcclVersion(facts.nccl.version)});
  }
}

}  // namespace

void AddGpuFindings(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all) {
  AddBuild(facts, wish, all);
  if (wish.device == "cpu") return;
  if (AddDriver(facts, wish, all)) {
    AddGpus(facts, wish, all);
    AddPeers(facts, all);
  }
  AddNccl(facts, all);
}

}  // namespace fathom::client
