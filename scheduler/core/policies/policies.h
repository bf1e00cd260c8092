// scheduler/core/policies/policies.h: the function of each policy that makes it. policy.cc has the
// table of their names.
#pragma once

#include <memory>

#include "scheduler/core/policy.h"

namespace fathom::scheduler {

// For all of them: `tenants` outlives the policy and may change between two calls of it.
std::unique_ptr<Policy> MakeFcfs(const TenantTable* tenants);
std::unique_ptr<Policy> MakePriority(const TenantTable* tenants);
std::unique_ptr<Policy> MakeShortestPrompt(const TenantTable* tenants);
std::unique_ptr<Policy> MakeFair(const TenantTable* tenants);

}  // namespace fathom::scheduler
