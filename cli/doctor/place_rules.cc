#include <fmt/format.h>

#include <algorithm>

#include "cli/doctor/doctor_rules.h"
#include "common/flag_names.h"

namespace fathom::client {
namespace {

constexpr int64_t kLogBytes = int64_t{64} << 20;  // Logs of a small cluster.

std::string Join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

void AddPorts(const DoctorFacts& facts, std::vector<Finding>* all) {
  std::string free;
  for (const PortFacts& port : facts.ports) {
    const std::string name = fmt::format("port {}", port.port);
    if (port.error.empty()) {
      free += fmt::format("{}{}", free.empty() ? "" : ", ", port.port);
      continue;
    }
    const std::string other = fmt::format("{} with another port", port.flag);
    if (!port.taken) {
      all->push_back({name, Level::kError, port.error, "a port that this user may listen on",
                      other + " (from 1024 on, every user may)"});
      continue;
    }
    const std::string holder = port.holder_pid == 0
                                   ? "another process (of another user or container)"
                                   : fmt::format("{} (pid {})", port.holder, port.holder_pid);
    const bool ours = port.holder.starts_with("fathom");
    all->push_back(
        {name, ours ? Level::kNote : Level::kError, "taken by " + holder,
         ours ? "a second cluster on this machine needs other ports" : "free for " + port.flag,
         ours ? "none for the running one; for a second one " + port.flag + " 0"
         : port.holder_pid == 0
             ? fmt::format("sudo ss -ltnp 'sport = :{}' names it; or {}", port.port, other)
             : fmt::format("kill {}, or {}", port.holder_pid, other)});
  }
  if (!free.empty()) all->push_back({"ports", Level::kOk, "free: " + free});
}

void AddClock(const DoctorFacts& facts, std::vector<Finding>* all) {
  const ClockFacts& clock = facts.clock;
  if (clock.goes_backwards) {
    all->push_back({"clock", Level::kError, "the monotonic clock goes backwards",
                    "a clock that never does: deadlines and silence are measured with it",
                    "a kernel fault: choose another source in "
                    "/sys/devices/system/clocksource/clocksource0/current_clocksource, reboot"});
  } else if (clock.source == "hpet" || clock.source == "acpi_pm" || clock.source == "jiffies") {
    all->push_back({"clock", Level::kWarning, "the source is " + clock.source,
                    "tsc (or the hypervisor's): a slow source takes a microsecond for each look",
                    "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource; "
                    "if the kernel marked it unstable, boot with tsc=reliable"});
  } else {
    all->push_back(
        {"clock", Level::kOk,
         "monotonic" + (clock.source.empty() ? std::string() : ", source " + clock.source)});
  }
  if (!clock.synchronized) return;
  if (*clock.synchronized) {
    all->push_back({"time of day", Level::kOk, "synchronized"});
  } else {
    all->push_back({"time of day", Level::kNote, "not synchronized (or unknown in a container)",
                    "only to compare the logs of several hosts; no decision depends on it",
                    "timedatectl set-ntp true, or install chrony"});
  }
}

void AddEnvironment(const DoctorFacts& facts, std::vector<Finding>* all) {
  if (facts.proxies.empty()) {
    all->push_back({"proxies", Level::kOk, "none in the environment"});
  } else {
    all->push_back(
        {"proxies", Level::kNote, Join(facts.proxies) + " set",
         "nothing: Fathom ignores them (without --use-proxy). Other clients may send calls for "
         "127.0.0.1 to the proxy",
         facts.proxies_spare_this_machine ? "" : "export no_proxy=127.0.0.1,localhost"});
  }
  if (!facts.fathom_variables.empty()) {
    all->push_back({"variables", Level::kNote, Join(facts.fathom_variables) + " set",
                    "nothing: each one is the default of a flag of that name",
                    "unset those that are not meant; in Kubernetes enableServiceLinks: false"});
  }
  if (!facts.nccl_variables.empty()) {
    all->push_back({"nccl variables", Level::kNote, Join(facts.nccl_variables) + " set",
                    "nothing: each one has precedence over our flags",
                    "unset those that are not meant"});
  }
}

void AddRunFolder(const DoctorFacts& facts, std::vector<Finding>* all) {
  Finding finding{
      "run directory", Level::kOk,
      fmt::format("{}, {} free", facts.run_folder, FormatBytes(facts.run_folder_free_bytes))};
  if (!facts.run_folder_error.empty()) {
    finding.level = Level::kError;
    finding.found = fmt::format("{}: {}", facts.run_folder, facts.run_folder_error);
    finding.needed = "a writable folder for logs and the term file";
    finding.fix = "fathom serve --run-dir FOLDER; in a pod an emptyDir";
  } else if (facts.run_folder_free_bytes < kLogBytes) {
    finding.level = Level::kWarning;
    finding.needed = FormatBytes(kLogBytes) + ": lines that do not fit are dropped";
    finding.fix = "free some space, or fathom serve --run-dir FOLDER on another disk";
  }
  all->push_back(std::move(finding));
}

}  // namespace

void AddPlaceFindings(const DoctorFacts& facts, std::vector<Finding>* all) {
  AddPorts(facts, all);
  AddClock(facts, all);
  AddEnvironment(facts, all);
  AddRunFolder(facts, all);
}

}  // namespace fathom::client
