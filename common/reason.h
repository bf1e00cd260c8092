// common/reason.h: every stable reason that an error can carry, in one table. Clients see the text
// (ErrorInfo.reason, and its like on the cluster's streams); docs/API.md shows the table. A text
// never changes its meaning and is never used again for another one. Pure.
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
  // ---- FAILED_PRECONDITION
  kNoChatTemplate,
  kModelChanged,
  kRecordMismatch,
  kFingerprintMismatch,
  // ---- RESOURCE_EXHAUSTED
  kQueueFull,
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
  // ---- INTERNAL
  kNonFiniteLogits,
  kTokenOutOfRange,
  kBlockOutOfRange,
  kFailedBefore,
  kInternal,
};

struct ReasonRow {
  Reason reason;
  std::string_view text;  // "QUEUE_FULL"
  absl::StatusCode code;
  absl::StatusCode other_code;  // That it may have as well; kOk: none.
  std::string_view meaning;     // One line of docs/API.md.
};

// One row for each Reason, in the order of the enumeration.
std::span<const ReasonRow> Reasons();

// "QUEUE_FULL"
std::string ReasonText(Reason reason);

// `status` with reason, field ("": none) and retry delay (0: trying again does not help) attached.
// REQUIRES: !status.ok().
absl::Status WithReason(absl::Status status, Reason reason, std::string_view field = {},
                        int64_t retry_after_ms = 0);

}  // namespace fathom
