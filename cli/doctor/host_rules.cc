#include <fmt/format.h>

#include <algorithm>

#include "cli/doctor/doctor_rules.h"
#include "cli/serve/cluster_plan.h"
#include "common/flag_names.h"

namespace fathom::client {
namespace {

constexpr int64_t kDoctorMib = int64_t{1} << 20;
constexpr int64_t kDoctorGib = int64_t{1} << 30;
// What docs/OPERATIONS.md, "Limits of the system", gives each process and `fathom serve`.
constexpr int64_t kProcessDescriptors = 48;
constexpr int64_t kProcessThreads = 24;
constexpr int64_t kRingBytes = 4 * kDoctorMib + kDoctorMib / 2;  // Of a rank in /dev/shm, at most.
constexpr int64_t kReservedDescriptors = 256;                    // The rest is halved for clients.
constexpr int64_t kFewDescriptors = 1024;
constexpr int64_t kBacklog = 1024;  // Of our ports.
constexpr int64_t kMapsMin = 65530;

int32_t ChildrenOf(const DoctorWish& wish) { return wish.workers + 2; }  // Router and scheduler.

std::string LimitText(const std::optional<int64_t>& limit) {
  return limit ? fmt::format("{}", *limit) : "unlimited";
}

std::string LimitBytesText(const std::optional<int64_t>& limit) {
  return limit ? FormatBytes(*limit) : "unlimited";
}

void AddDescriptors(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all) {
  const auto& hard = facts.descriptors;  // Each process raises its soft limit to it.
  const int64_t needed = std::max(kProcessDescriptors, ServeNeeds(wish.workers).descriptors);
  Finding finding{"descriptors", Level::kOk, LimitText(hard) + " (the hard limit)"};
  if (hard.value_or(needed) < needed) {
    finding.level = Level::kError;
    finding.needed =
        fmt::format("at least {} for fathom serve with {} workers", needed, wish.workers);
    finding.fix =
        "ulimit -Hn 65536 (as root; LimitNOFILE=65536 of a systemd unit, --ulimit "
        "nofile=65536 of docker run)";
  } else if (hard.value_or(kFewDescriptors) < kFewDescriptors) {
    finding.level = Level::kWarning;
    finding.needed =
        fmt::format("{} or more: the router keeps half of those beyond {} for clients, here {}",
                    kFewDescriptors, kReservedDescriptors,
                    std::max<int64_t>(*hard - kReservedDescriptors, 0) / 2);
    finding.fix = "ulimit -Hn 65536 (as root; LimitNOFILE=65536, --ulimit nofile=65536)";
  }
  all->push_back(std::move(finding));
}

void AddThreads(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all) {
  const int64_t needed = kProcessThreads * ChildrenOf(wish) + 8 + facts.cpus;
  Finding finding{"threads", Level::kOk, "enough"};
  const auto check = [&](const std::optional<int64_t>& have, const std::string& whose,
                         const std::string& fix) {
    if (have.value_or(needed) >= needed || finding.level == Level::kError) return;
    finding = {"threads", Level::kError, fmt::format("{} allows {} more", whose, *have),
               fmt::format("at least {} for {} workers", needed, wish.workers), fix};
  };
  check(facts.cgroup_threads_left, "the control group (pids.max)",
        "raise TasksMax= of the systemd unit, --pids-limit of docker run, podPidsLimit of the "
        "kubelet");
  check(facts.processes, "the limit of processes of this user (ulimit -Hu)",
        "ulimit -Hu 65536 (as root; LimitNPROC= of a systemd unit)");
  check(facts.kernel.threads_max, "kernel.threads-max", "sysctl -w kernel.threads-max=131072");
  check(facts.kernel.pid_max, "kernel.pid_max", "sysctl -w kernel.pid_max=131072");
  all->push_back(std::move(finding));
}

void AddMemory(const DoctorFacts& facts, std::vector<Finding>* all) {
  const auto& group = facts.cgroup_memory_bytes;
  const auto& free = facts.memory_available_bytes;
  Finding finding{
      "memory", Level::kOk,
      fmt::format("{} available, control group {}",
                  free ? FormatBytes(*free) : std::string("unknown"), LimitBytesText(group))};
  if (group.value_or(kDoctorGib) < kDoctorGib || free.value_or(kDoctorGib) < kDoctorGib) {
    finding.level = Level::kWarning;
    finding.needed =
        "1 GiB, and on the CPU the model's weights and KV besides (fathom plan "
        "--device cpu)";
    finding.fix =
        group.value_or(kDoctorGib) < kDoctorGib
            ? "raise MemoryMax= of the systemd unit, --memory of docker run, "
              "resources.limits.memory of the pod"
            : "end other processes (`ps aux --sort -rss | head`), or use a larger machine";
  }
  all->push_back(std::move(finding));
  const auto& space = facts.address_space_bytes;
  if (space && *space < 2 * kDoctorGib) {
    all->push_back({"address space", Level::kError,
                    fmt::format("{} (ulimit -v)", LimitBytesText(space)),
                    "2 GiB plus the model; better no limit",
                    "ulimit -v unlimited; bound memory by a control group instead"});
  }
  if (facts.kernel.overcommit_memory == 2) {
    all->push_back({"overcommit", Level::kWarning, "vm.overcommit_memory is 2",
                    "0 or 1: CUDA and thread stacks reserve far more addresses than they use",
                    "sysctl -w vm.overcommit_memory=0"});
  }
}

void AddCpus(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all) {
  const double usable =
      std::min<double>(facts.cpus, facts.cpu_quota.value_or(static_cast<double>(facts.cpus)));
  std::string instructions;
  for (const std::string& name : facts.instructions) instructions += " " + name;
  Finding finding{
      "cpus", Level::kOk,
      fmt::format("{}{}{}", facts.cpus,
                  facts.cpu_quota ? fmt::format(", quota {:.2f}", *facts.cpu_quota) : std::string(),
                  instructions.empty() ? std::string() : "," + instructions)};
  if (usable < 2) {
    finding.level = Level::kWarning;
    finding.needed = fmt::format("2 or more for {} processes, which must send heartbeats in time",
                                 ChildrenOf(wish));
    finding.fix =
        "raise CPUQuota= of the systemd unit, --cpus of docker run, resources.limits.cpu "
        "of the pod";
  }
  all->push_back(std::move(finding));
}

void AddSharedMemory(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all) {
  const SharedMemoryFacts& shm = facts.shared_memory;
  const int64_t needed = wish.workers > 1 ? wish.workers * kRingBytes : 0;
  const Level bad = wish.workers > 1 ? Level::kError : Level::kWarning;
  const std::string want = wish.workers > 1
                               ? FormatBytes(needed) + " free, writable: ranks of one host share it"
                               : "needed with -tp or -pp above 1, and by NCCL";
  if (!shm.exists) {
    all->push_back({"/dev/shm", bad, "does not exist", want,
                    "mount -t tmpfs -o size=1G tmpfs /dev/shm; in a pod an emptyDir with medium "
                    "Memory"});
  } else if (!shm.writable) {
    all->push_back({"/dev/shm", bad, fmt::format("not writable ({})", shm.error), want,
                    "chmod 1777 /dev/shm; if it is read-only: mount -o remount,rw /dev/shm"});
  } else if (shm.free_bytes < needed) {
    all->push_back({"/dev/shm", Level::kError, FormatBytes(shm.free_bytes) + " free", want,
                    "mount -o remount,size=1G /dev/shm; --shm-size=1g of docker run; sizeLimit of "
                    "the pod's emptyDir"});
  } else {
    all->push_back({"/dev/shm", Level::kOk,
                    fmt::format("{} of {} free, writable", FormatBytes(shm.free_bytes),
                                FormatBytes(shm.total_bytes))});
  }
}

void AddKernel(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all) {
  const KernelFacts& kernel = facts.kernel;
  if (facts.infiniband && facts.locked_memory) {
    all->push_back({"locked memory", Level::kWarning, LimitBytesText(facts.locked_memory),
                    "unlimited: NCCL registers its buffers with the InfiniBand cards",
                    "ulimit -Hl unlimited (LimitMEMLOCK=infinity, --ulimit memlock=-1)"});
  } else {
    all->push_back({"locked memory", Level::kOk,
                    LimitBytesText(facts.locked_memory) +
                        (facts.infiniband ? "" : "; only NCCL over InfiniBand needs more")});
  }
  if (kernel.somaxconn && *kernel.somaxconn < kBacklog) {
    all->push_back({"somaxconn", Level::kNote, fmt::format("{}", *kernel.somaxconn),
                    fmt::format("{} for bursts of new connections", kBacklog),
                    "sysctl -w net.core.somaxconn=4096"});
  }
  if (kernel.max_map_count && *kernel.max_map_count < kMapsMin) {
    all->push_back({"max_map_count", Level::kWarning, fmt::format("{}", *kernel.max_map_count),
                    fmt::format("{}: CUDA and thread stacks map many pieces", kMapsMin),
                    "sysctl -w vm.max_map_count=262144"});
  }
  // A worker on the CPU asks for huge pages for weights and KV; on a GPU they make no difference.
  if (wish.device != "cuda" && facts.driver.gpus.empty() && kernel.huge_pages == "never") {
    all->push_back({"huge pages", Level::kNote, "transparent huge pages are off",
                    "madvise, for weights and KV of a worker on the CPU",
                    "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"});
  }
}

}  // namespace

void AddHostFindings(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all) {
  AddCpus(facts, wish, all);
  AddMemory(facts, all);
  AddSharedMemory(facts, wish, all);
  AddDescriptors(facts, wish, all);
  AddThreads(facts, wish, all);
  AddKernel(facts, wish, all);
}

}  // namespace fathom::client
