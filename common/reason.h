// common/reason.h: the table of all stable reasons that an error can carry. Clients see the text
// (ErrorInfo.reason, and the same field on the cluster's streams); docs/API.md shows the table. The
// meaning of a text never changes, and a text is never reused, because clients compare it. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "common/status.h"

namespace fathom {

enum class Reason {
  // ---- INVALID_ARGUMENT
  kOutOfRange,
  kInvalidCharacter,
  kInvalidUtf8,
  kInvalidText,
  kUnknownField,
  kMalformedMessage,
  kEmptyPrompt,
  kContextLengthExceeded,
  kKvPoolExceeded,
  kNothingToSend,
  kNoTokenizer,
  kStopNeverFound,
  kUnknownRole,
  kRoleLeftOut,
  kInvalidJson,
  kJsonTooDeep,
  kInvalidGrammar,
  kTemplateVariable,
  kChatTemplateRefused,
  kRecordInvalid,
  // ---- NOT_FOUND
  kModelNotFound,
  kSessionNotFound,
  // ---- ALREADY_EXISTS
  kRequestIdInUse,
  kIdempotencyKeyReused,
  // ---- UNIMPLEMENTED
  kNotImplemented,
  kNoGrammarEngine,
  // ---- FAILED_PRECONDITION
  kNoChatTemplate,
  kModelChanged,
  kRecordMismatch,
  kFingerprintMismatch,
  // ---- RESOURCE_EXHAUSTED
  kQueueFull,
  kTenantQueueFull,
  kTenantRateLimit,
  kSessionMemoryFull,
  kTooManyStreams,
  kTokenizerBusy,
  // ---- UNAVAILABLE
  kNoScheduler,
  kNoWorkers,
  kModelMismatch,
  kDraining,
  // ---- DEADLINE_EXCEEDED
  kDeadline,
  kDeadlineUnreachable,
  // ---- INTERNAL
  kNonFiniteLogits,
  kTokenOutOfRange,
  kBlockOutOfRange,
  kEndsWorkers,
  kFailedBefore,
  kInternal,
  // ---- UNAUTHENTICATED
  kMissingApiKey,
  kInvalidApiKey,
  kExpiredApiKey,
  // ---- PERMISSION_DENIED
  kPermissionDenied,
};

struct ReasonRow {
  Reason reason;
  std::string_view text;  // "QUEUE_FULL"
  absl::StatusCode code;
  absl::StatusCode other_code;  // Another code that it may have; kOk: none.
  std::string_view meaning;     // One line of docs/API.md.
};

// One row for each Reason, in the order of the enumeration.
std::span<const ReasonRow> Reasons();

// "QUEUE_FULL"
std::string ReasonText(Reason reason);

// `status` with reason, field ("": none) and retry delay (0: a retry does not help) attached.
// REQUIRES: !status.ok().
absl::Status WithReason(absl::Status status, Reason reason, std::string_view field = {},
                        int64_t retry_after_ms = 0);

}  // namespace fathom
