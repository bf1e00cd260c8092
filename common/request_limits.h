// common/request_limits.h: the limits of lists and numbers in one request. Admission refuses more
// from a client, the codec refuses more from a peer, and the engines' buffers are sized by the same
// numbers. cluster/request.h and cluster/plan.h have the structs.
#pragma once

#include <cstdint>

namespace fathom {

// Entries of logit_bias, suppressed tokens included.
inline constexpr int32_t kLogitBiasMax = 1024;
inline constexpr int32_t kStopTokensMax = 128;  // The request's own stop token ids.
inline constexpr int32_t kEndTokensMax = 64;    // The model's end token ids.
inline constexpr int32_t kTopLogprobsMax = 20;  // Alternatives of a token.
inline constexpr int32_t kSequencesMax = 128;   // n.
inline constexpr int32_t kStopStringsMax = 16;
inline constexpr int32_t kStopStringBytesMax = 256;
inline constexpr int32_t kPriorityMax = 1'000'000;  // Of the absolute value.
inline constexpr int32_t kCacheSaltBytesMax = 256;
inline constexpr int32_t kAdmitIdsMax = 32 * 1024;  // Ids of one admit; later plans carry the rest.
// The compiled form of a grammar that an output follows.
inline constexpr int32_t kGrammarBytesMax = 8 << 20;
inline constexpr int32_t kDraftsMax = 16;  // Drafts of a decode row (speculative decoding).

}  // namespace fathom
