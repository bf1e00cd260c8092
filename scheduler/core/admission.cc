#include "scheduler/core/admission.h"

#include <algorithm>
#include <utility>

#include "common/reason.h"

namespace fathom::scheduler {
namespace {

constexpr double kMargin = 1.25;  // Of the measured time of a place: rates vary.

// What one tenant may take of a limit of the queue.
int64_t PartOfOne(int64_t max) { return max - max / 8; }

// The limit of a tenant's own, or its part of the queue's, whichever is less.
struct TenantGate {
  TenantGate(std::string_view own_name, int64_t own, std::string_view all_name, int64_t all,
             bool keep_some)
      : is_own(!keep_some || (own > 0 && own <= PartOfOne(all))),
        name(is_own ? std::string(own_name) : fmt::format("for one tenant of {}", all_name)),
        max(is_own ? own : PartOfOne(all)) {}
  bool is_own;
  std::string name;
  int64_t max;
};

struct Gate {
  RefusedBy by;
  std::string_view what;      // "requests", "prompt tokens"
  std::string_view limit;     // The name of the limit, as its operator writes it.
  int64_t used, amount, max;  // max 0: no limit.
  RetryPromises* line;
  bool of_tenant = false;  // `used` is of the tenant.
};

absl::Status Pass(const Gate& gate, const SessionKey& key, TimeUs now) {
  if (gate.max == 0 || gate.line->Admits(key, gate.used, gate.amount, gate.max, now)) {
    return absl::OkStatus();
  }
  const double us = gate.line->UsPerUnit() * kMargin;
  const auto hold_us = static_cast<int64_t>(us * static_cast<double>(gate.amount));
  const int64_t missing = std::max<int64_t>(gate.used + gate.amount - gate.max, 1);
  const auto wait_us = static_cast<int64_t>(us * static_cast<double>(missing));
  const int64_t delay_ms = gate.line->Refuse(key, gate.amount, wait_us, hold_us, now);
  const bool tenant = gate.by == RefusedBy::kTenantRequests || gate.by == RefusedBy::kTenantTokens;
  const std::string whose = gate.of_tenant ? fmt::format(" of tenant '{}'", key.tenant) : "";
  return WithReason(
      Exhausted("request {}: {} {}{} wait and this request has {}; the limit {} is {}. Send it "
                "again under the same id in {} ms, when a place is kept for it",
                key.request_id, gate.used, gate.what, whose, gate.amount, gate.limit, gate.max,
                delay_ms),
      tenant ? Reason::kTenantQueueFull : Reason::kQueueFull, "", delay_ms);
}

}  // namespace

const char* RefusedByName(RefusedBy by) {
  switch (by) {
    case RefusedBy::kQueueRequests:
      return "queue_requests";
    case RefusedBy::kQueueTokens:
      return "queue_tokens";
    case RefusedBy::kTenantRequests:
      return "tenant_requests";
    case RefusedBy::kTenantTokens:
      return "tenant_tokens";
    case RefusedBy::kTenantRate:
      return "tenant_rate";
    case RefusedBy::kDeadline:
      return "deadline";
    case RefusedBy::kOther:
      break;
  }
  return "other";
}

void Admission::Queue::Add(int64_t requests_more, int64_t tokens_more, TimeUs now) {
  requests += requests_more;
  tokens += tokens_more;
  requests_line.Note(requests, std::max<int64_t>(-requests_more, 0), now);
  tokens_line.Note(tokens, std::max<int64_t>(-tokens_more, 0), now);
}

absl::Status Admission::Check(const Record& record, bool keep_some, TimeUs now) {
  const SessionKey& key = record.key;
  const TenantLimits& limits = table_.Of(key.tenant);
  Tenant& tenant = Of(key.tenant);
  const int64_t sequences = std::max<int32_t>(record.request.sequences, 1);
  const int64_t tokens = std::ssize(record.prompt_ids) * sequences;
  const TenantGate own_requests("queued_max", limits.queued_max, "--waiting-requests-max",
                                requests_max_, keep_some);
  const TenantGate own_tokens("queued_tokens_max", limits.queued_tokens_max, "--waiting-tokens-max",
                              tokens_max_, keep_some);
  const Gate gates[] = {
      {own_requests.is_own ? RefusedBy::kTenantRequests : RefusedBy::kQueueRequests, "requests",
       own_requests.name, tenant.queue.requests, sequences, own_requests.max,
       &tenant.queue.requests_line, true},
      {own_tokens.is_own ? RefusedBy::kTenantTokens : RefusedBy::kQueueTokens, "prompt tokens",
       own_tokens.name, tenant.queue.tokens, tokens, own_tokens.max, &tenant.queue.tokens_line,
       true},
      {RefusedBy::kQueueRequests, "requests", "--waiting-requests-max", all_.requests, sequences,
       requests_max_, &all_.requests_line},
      {RefusedBy::kQueueTokens, "prompt tokens", "--waiting-tokens-max", all_.tokens, tokens,
       tokens_max_, &all_.tokens_line}};
  absl::Status status =
      CheckRate(record, tokens + sequences * record.request.stop.max_tokens, tenant, now);
  for (const Gate& gate : gates) {
    if (!status.ok()) break;
    status = Pass(gate, key, now);
    if (!status.ok()) CountRefused(gate.by);
  }
  Forget(now);
  return status;
}

absl::Status Admission::CheckRate(const Record& record, int64_t tokens, Tenant& tenant,
                                  TimeUs now) {
  const int64_t rate = tenant.bucket.rate();
  if (rate == 0) return absl::OkStatus();
  const int64_t used = rate - tenant.bucket.Tokens(now);
  if (tenant.bucket_line.Admits(record.key, used, 1, rate, now)) return absl::OkStatus();
  CountRefused(RefusedBy::kTenantRate);
  const int64_t delay_ms = tenant.bucket_line.Refuse(
      record.key, tokens, tenant.bucket.EmptyForUs(now), tenant.bucket.UsOf(tokens), now);
  return WithReason(
      Exhausted("request {}: tenant '{}' has used its tokens: the limit tokens_per_minute is {}, "
                "and prompt and max_tokens of this request are {}. Send it again under the same id "
                "in {} ms",
                record.key.request_id, record.key.tenant, rate, tokens, delay_ms),
      Reason::kTenantRateLimit, "", delay_ms);
}

void Admission::Accepted(const SessionKey& key) {
  Tenant& tenant = Of(key.tenant);
  for (RetryPromises* line : {&all_.requests_line, &all_.tokens_line, &tenant.queue.requests_line,
                              &tenant.queue.tokens_line, &tenant.bucket_line}) {
    line->Take(key);
  }
}

void Admission::Queued(const std::string& tenant, int64_t tokens, TimeUs now) {
  all_.Add(1, tokens, now);
  Of(tenant).queue.Add(1, tokens, now);
}

void Admission::Unqueued(const std::string& tenant, int64_t tokens, TimeUs now) {
  all_.Add(-1, -tokens, now);
  Of(tenant).queue.Add(-1, -tokens, now);
}

void Admission::Vacated(const std::string& tenant) { --Of(tenant).running; }

bool Admission::AtRunningMax(const std::string& tenant) const {
  const int32_t running_max = table_.Of(tenant).running_max;
  const auto of = tenants_.find(tenant);
  return running_max > 0 && of != tenants_.end() && of->second.running >= running_max;
}

void Admission::ForEachRunning(const std::function<void(const std::string&)>& visit) const {
  for (const auto& [name, tenant] : tenants_) {
    if (tenant.running > 0) visit(name);
  }
}

void Admission::TakeTokens(const std::string& tenant, int64_t tokens, TimeUs now) {
  Of(tenant).bucket.Take(tokens, now);
}

void Admission::SetTable(TenantTable table, TimeUs now) {
  table_ = std::move(table);
  for (auto& [name, tenant] : tenants_) {
    tenant.bucket.SetRate(table_.Of(name).tokens_per_minute, now);
  }
}

Admission::Tenant& Admission::Of(const std::string& name) {
  const auto [found, is_new] = tenants_.try_emplace(name);
  if (is_new) found->second.bucket.SetRate(table_.Of(name).tokens_per_minute, 0);
  return found->second;
}

bool Admission::Idle(Tenant& tenant, TimeUs now) {
  return tenant.running == 0 && tenant.queue.requests == 0 && tenant.queue.requests_line.empty() &&
         tenant.queue.tokens_line.empty() && tenant.bucket_line.empty() && tenant.bucket.Full(now);
}

void Admission::Forget(TimeUs now) {
  if (tenants_.size() < forget_at_) return;
  for (auto it = tenants_.begin(); it != tenants_.end();) {
    Tenant& tenant = it->second;
    if (!Idle(tenant, now)) {
      ++it;
      continue;
    }
    for (const RetryPromises* line :
         {&tenant.queue.requests_line, &tenant.queue.tokens_line, &tenant.bucket_line}) {
      forgotten_.kept += line->counts().kept;
      forgotten_.broken += line->counts().broken;
    }
    it = tenants_.erase(it);
  }
  forget_at_ = std::max<size_t>(64, 2 * tenants_.size());
}

RetryPromises::Counts Admission::promises() const {
  RetryPromises::Counts sum = forgotten_;
  const auto add = [&](const RetryPromises& line) {
    sum.kept += line.counts().kept;
    sum.broken += line.counts().broken;
  };
  add(all_.requests_line);
  add(all_.tokens_line);
  for (const auto& [name, tenant] : tenants_) {
    add(tenant.queue.requests_line);
    add(tenant.queue.tokens_line);
    add(tenant.bucket_line);
  }
  return sum;
}

absl::Status Admission::CheckCounts(int64_t queued, int64_t queued_tokens, int64_t running) const {
  int64_t requests = 0, tokens = 0, seated = 0;
  for (const auto& [name, tenant] : tenants_) {
    requests += tenant.queue.requests;
    tokens += tenant.queue.tokens;
    seated += tenant.running;
    if (tenant.queue.requests < 0 || tenant.queue.tokens < 0 || tenant.running < 0) {
      return Internal("tenant '{}' counts {} queued ({} tokens) and {} running", name,
                      tenant.queue.requests, tenant.queue.tokens, tenant.running);
    }
  }
  if (requests == queued && tokens == queued_tokens && seated == running &&
      all_.requests == queued && all_.tokens == queued_tokens) {
    return absl::OkStatus();
  }
  return Internal("admission counts {} queued ({} tokens) and {} running, of {} ({}) and {}",
                  requests, tokens, seated, queued, queued_tokens, running);
}

}  // namespace fathom::scheduler
