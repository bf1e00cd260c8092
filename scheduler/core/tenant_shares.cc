#include "scheduler/core/tenant_shares.h"

#include <algorithm>

#include "common/check.h"

namespace fathom::scheduler {

void TenantShares::SetTime(TimeUs now) {
  now_ = now;
  while (!idle_.empty() && (idle_.begin()->first + kPresentUs <= now || idle_.size() > kIdleMax)) {
    const auto found = tenants_.find(idle_.begin()->second);
    weights_ -= found->second.weight;
    tenants_.erase(found);
    idle_.erase(idle_.begin());
  }
}

void TenantShares::TableChanged() {
  weights_ = 0;
  for (auto& [name, tenant] : tenants_) {
    tenant.weight = table_.Of(name).weight;
    weights_ += tenant.weight;
  }
}

void TenantShares::Add(const std::string& name, int32_t waiting, int32_t running) {
  if (!used_) return;
  const auto [found, is_new] = tenants_.try_emplace(name);
  Tenant& tenant = found->second;
  if (is_new) {
    tenant.weight = table_.Of(name).weight;
    weights_ += tenant.weight;
  } else if (tenant.waiting + tenant.running == 0) {
    idle_.erase({tenant.idle_us, name});
  }
  tenant.waiting += waiting;
  tenant.running += running;
  FATHOM_CHECK(tenant.waiting >= 0 && tenant.running >= 0, "tenant '{}' has {} waiting, {} running",
               name, tenant.waiting, tenant.running);
  waiting_ += waiting;
  running_ += running;
  if (tenant.waiting + tenant.running > 0) return;
  tenant.idle_us = now_;
  idle_.emplace(now_, name);
}

const TenantShares::Tenant* TenantShares::Find(std::string_view tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? nullptr : &found->second;
}

bool TenantShares::IsOver(std::string_view name) const {
  if (tenants_.size() < 2) return false;
  const Tenant* tenant = Find(name);
  if (tenant == nullptr || tenant->running < std::max(1, slots_ / 16)) return false;
  const int64_t weighed = tenant->running * weights_;
  return 4 * tenant->waiting >= tenant->running && weighed > running_ * tenant->weight &&
         8 * weighed > 3 * int64_t{slots_} * tenant->weight;
}

bool TenantShares::OthersArePresent(std::string_view name) const {
  return tenants_.size() > (Find(name) == nullptr ? 0u : 1u);
}

bool TenantShares::OthersAreThere(std::string_view name) const {
  const Tenant* tenant = Find(name);
  const int64_t own = tenant == nullptr ? 0 : tenant->waiting + tenant->running;
  return waiting_ + running_ > own;
}

int32_t TenantShares::KeptSlots(std::string_view name, int32_t slots, size_t groups) const {
  const Tenant* tenant = Find(name);
  const int64_t others = running_ - (tenant == nullptr ? 0 : tenant->running);
  return static_cast<int32_t>(std::min<int64_t>(
      slots / kKeptPart, 2 + others / (2 * std::max<int64_t>(1, static_cast<int64_t>(groups)))));
}

absl::Status TenantShares::Check(int64_t waiting, int64_t running) const {
  if (!used_) return absl::OkStatus();
  int64_t of_tenants = 0, weights = 0;
  size_t idle = 0;
  for (const auto& [name, tenant] : tenants_) {
    of_tenants += tenant.waiting + tenant.running;
    weights += tenant.weight;
    if (tenant.waiting + tenant.running > 0) continue;
    ++idle;
    if (!idle_.contains({tenant.idle_us, name})) {
      return Internal("tenant '{}' has no sequence and is not idle", name);
    }
  }
  if (waiting_ == waiting && running_ == running && of_tenants == waiting + running &&
      weights == weights_ && idle == idle_.size()) {
    return absl::OkStatus();
  }
  return Internal("the shares count {} waiting and {} running of weight {}, of {} and {} and {}",
                  waiting_, running_, weights_, waiting, running, weights);
}

}  // namespace fathom::scheduler
