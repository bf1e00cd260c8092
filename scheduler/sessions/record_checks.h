// scheduler/sessions/record_checks.h: whether a submitted record can be taken. Pure functions;
// every status carries an ErrorDetail.
#pragma once

#include <cstdint>
#include <string>

#include "cluster/request.h"
#include "common/status.h"

namespace fathom::scheduler {

// What holds for any record, whatever the groups. n > sequences_max is UNIMPLEMENTED.
absl::Status CheckRecord(const SessionKey& key, const Record& record, int32_t sequences_max);

// Whether `submitted` is the request that is held under the same key: same body, and ids and
// fingerprints that agree as far as both know them.
absl::Status CheckSameSession(const Record& held, const Record& submitted);

// The fingerprint that holds at `position`; empty: not known.
std::string FingerprintAt(const Record& record, int32_t position);
ComputeKind KindAt(const Record& record, int32_t position);

}  // namespace fathom::scheduler
