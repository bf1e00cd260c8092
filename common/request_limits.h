// common/request_limits.h: how much of a list or number one request may have. Admission refuses
// more, the codec refuses more from a peer, and the engines' buffers hold as much: all by these
// numbers. cluster/request.h and cluster/plan.h have the structs that they limit.
#pragma once

#include <cstdint>

namespace fathom {

inline constexpr int32_t kLogitBiasMax =
    1024;  // Entries of logit_bias, suppressed tokens included.
inline constexpr int32_t kStopTokensMax = 128;  // The request's own stop token ids.
inline constexpr int32_t kEndTokensMax = 64;    // The model's end token ids.
inline constexpr int32_t kTopLogprobsMax = 20;  // Alternatives beside a token.
inline constexpr int32_t kSequencesMax = 128;   // n.
inline constexpr int32_t kStopStringsMax = 16;
inline constexpr int32_t kStopStringBytesMax = 256;
inline constexpr int32_t kAdmitIdsMax = 32 * 1024;  // Ids of one admit; more follow in later plans.

}  // namespace fathom
