// scheduler/core/tenant_shares.h: which tenants use more than their share of the groups while
// others are there, and what is kept from them then. The share of a tenant is its weight divided by
// the weights of all tenants that are present; a tenant is present while it has a sequence that
// waits or runs, and kPresentUs longer. A tenant is over its share if it has a queue (at least a
// quarter as many sequences wait as run) and runs more than its share of the sequences that run,
// more than three eighths of its share of the slots, and a sixteenth of the slots. Without a queue
// a tenant is never over its share, so that a short burst keeps nobody waiting. While several
// tenants are present:
//   - One over its share is given no slot while another tenant waits or runs. More sequences would
//     make the steps longer, and so the others' first tokens later; they add little to the tokens a
//     second (docs/PERFORMANCE.md, "A tenant that floods the cluster").
//   - Otherwise it gets no slot of the last ones that are free, and no block of the last ones
//     (KeptSlots), so that a tenant that comes back is admitted without waiting for the end of
//     another's answer.
//   - Its prompts have few rows of a step (kOverRowsPart) while another tenant waits or runs, so
//     that they do not make the steps long in which the others' prompts are computed.
//   - The requests of one tenant that wait take at most seven eighths of the limits of the queue
//     (Admission), so that a flood does not make the queue refuse everybody.
// Nothing is kept while only one tenant is present. A tenant that runs nothing is never over its
// share, and one that is over keeps some rows of each step, so none waits without end.
// Pure: time is an argument. Thread: not thread-safe; owned by the driver thread.
//
// State: one entry for each tenant that is present, at most kIdleMax of them without sequences.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "common/status.h"
#include "common/types.h"
#include "scheduler/core/tenant_limits.h"

namespace fathom::scheduler {

// A step has this part of its rows for prompts of tenants over their share.
inline constexpr int32_t kOverRowsPart = 8;

class TenantShares {
 public:
  // `table` outlives this object and may change between two calls; then TableChanged is called.
  // `used`: by a policy that gives shares; else nobody is over a share, and nothing is counted.
  TenantShares(const TenantTable* table, bool used) : table_(*table), used_(used) {}

  // Forgets the tenants that are not present any more.
  void SetTime(TimeUs now);
  void SetSlots(int32_t slots) { slots_ = slots; }  // Of all live groups.
  void TableChanged();

  // A sequence of the tenant begins to wait or to run, and does so no more. The two differ only in
  // what KeptSlots counts.
  void Waits(const std::string& tenant) { Add(tenant, 1, 0); }
  void WaitsNoMore(const std::string& tenant) { Add(tenant, -1, 0); }
  void Runs(const std::string& tenant) { Add(tenant, 0, 1); }
  void RunsNoMore(const std::string& tenant) { Add(tenant, 0, -1); }

  bool IsOver(std::string_view tenant) const;
  bool OthersArePresent(std::string_view tenant) const;
  // Whether a sequence of another tenant waits or runs.
  bool OthersAreThere(std::string_view tenant) const;
  // Of `slots` slots of one of `groups` groups, how many a tenant over its share leaves free.
  int32_t KeptSlots(std::string_view tenant, int32_t slots, size_t groups) const;

  // INTERNAL: the counts differ from these.
  absl::Status Check(int64_t waiting, int64_t running) const;

 private:
  static constexpr TimeUs kPresentUs = 10'000'000;
  static constexpr size_t kIdleMax = 1024;
  // At most this part of a group's slots and blocks is kept free.
  static constexpr int32_t kKeptPart = 8;

  struct Tenant {
    int32_t waiting = 0, running = 0;
    int32_t weight = 1;
    TimeUs idle_us = 0;  // Since when it has no sequence; its entry in idle_.
  };
  using Tenants = std::map<std::string, Tenant, std::less<>>;

  void Add(const std::string& tenant, int32_t waiting, int32_t running);
  const Tenant* Find(std::string_view tenant) const;

  const TenantTable& table_;
  const bool used_;
  TimeUs now_ = 0;
  Tenants tenants_;
  std::set<std::pair<TimeUs, std::string>> idle_;  // Those without sequences, by idle_us.
  int64_t weights_ = 0;                            // Of all tenants_.
  int64_t waiting_ = 0, running_ = 0;
  int32_t slots_ = 0;
};

}  // namespace fathom::scheduler
