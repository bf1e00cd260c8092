// scheduler/sessions/record_checks.h: whether a submitted record can be accepted. Pure functions;
// every status carries an ErrorDetail.
#pragma once

#include <cstdint>
#include <string>

#include "cluster/request.h"
#include "common/status.h"

namespace fathom::scheduler {

// Checks what must hold for any record, with any groups. n > sequences_max is UNIMPLEMENTED.
absl::Status CheckRecord(const SessionKey& key, const Record& record, int32_t sequences_max);

// Whether `submitted` is the request that is held under the same key: the body is the same, and ids
// and fingerprints agree as far as both records have them.
absl::Status CheckSameSession(const Record& held, const Record& submitted);

// The fingerprint and the kind that hold at `position`; nullptr: not known.
const FingerprintSpan* SpanAt(const SequenceRecord& record, int32_t position);

}  // namespace fathom::scheduler
