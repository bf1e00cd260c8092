// scheduler/core/record_checks.h: whether a submitted record can be taken. Pure functions; every
// status carries an ErrorDetail.
#pragma once

#include <cstdint>
#include <string>

#include "cluster/request.h"
#include "common/status.h"
#include "scheduler/core/events.h"

namespace fathom::scheduler {

// What holds for any record, whatever the groups. n > sequences_max is UNIMPLEMENTED.
absl::Status CheckRecord(const SessionKey& key, const Record& record, int32_t sequences_max);

// KV tokens of a sequence at its longest: the last token is never computed.
inline int32_t LongestKvTokens(const Record& record) {
  return static_cast<int32_t>(record.prompt_ids.size()) + record.request.stop.max_tokens - 1;
}

// Not OK: the request could never end in a group of these limits; the message says what would do.
// REQUIRES: CheckRecord(record) is OK.
absl::Status CheckFits(const Record& record, const GroupLimits& limits);
bool Fits(const Record& record, const GroupLimits& limits);

// Whether `submitted` is the request that is held under the same key: same body, and ids and
// fingerprints that agree as far as both know them.
absl::Status CheckSameSession(const Record& held, const Record& submitted);

// The fingerprint that holds at `position`; empty: not known.
std::string FingerprintAt(const Record& record, int32_t position);
ComputeKind KindAt(const Record& record, int32_t position);

}  // namespace fathom::scheduler
