// scheduler/core/tenant_limits.h: what an operator decides about tenants: their shares and limits
// (docs/OPERATIONS.md, "Tenants and priorities"). scheduler/tenant_file.h reads it from a file.
// Plain data.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace fathom::scheduler {

// Of one tenant. A limit of 0 is none.
struct TenantLimits {
  int32_t weight = 1;             // Its share of the computed tokens, relative to other tenants'.
  int32_t running_max = 0;        // Sequences in slots; further ones wait.
  int32_t queued_max = 0;         // Requests that wait for a first slot; further ones are refused.
  int64_t queued_tokens_max = 0;  // Their prompt tokens; likewise.
  // Prompt tokens and max_tokens of the requests that are accepted; further ones are refused. What
  // an answer does not use of its max_tokens is given back at its end.
  int64_t tokens_per_minute = 0;
  bool operator==(const TenantLimits&) const = default;
};

inline constexpr int32_t kTenantWeightMax = 1000;
inline constexpr int32_t kTenantRequestsMax = 1 << 24;
inline constexpr int64_t kTenantTokensMax = int64_t{10'000'000'000};
inline constexpr int32_t kTokenCostMax = 100;

struct TenantTable {
  // What a computed token counts in the shares. A decoded token costs more than one of a prompt,
  // because prompts are computed many tokens at a time.
  int32_t prefill_cost = 1;
  int32_t decode_cost = 2;
  TenantLimits defaults;  // Of each tenant that has no entry.
  std::map<std::string, TenantLimits, std::less<>> tenants;

  const TenantLimits& Of(std::string_view tenant) const {
    const auto found = tenants.find(tenant);
    return found == tenants.end() ? defaults : found->second;
  }
  bool operator==(const TenantTable&) const = default;
};

}  // namespace fathom::scheduler
