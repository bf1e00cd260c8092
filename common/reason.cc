#include "common/reason.h"

#include <utility>

namespace fathom {
namespace {

using Code = absl::StatusCode;
constexpr Code kNoOther = Code::kOk;

constexpr ReasonRow kReasons[] = {
    {Reason::kOutOfRange, "OUT_OF_RANGE", Code::kInvalidArgument, kNoOther,
     "a field is outside of its range"},
    {Reason::kInvalidCharacter, "INVALID_CHARACTER", Code::kInvalidArgument, kNoOther,
     "a name has a character that it may not have"},
    {Reason::kInvalidUtf8, "INVALID_UTF8", Code::kInvalidArgument, kNoOther, "a text is not UTF-8"},
    {Reason::kInvalidText, "INVALID_TEXT", Code::kInvalidArgument, kNoOther,
     "the tokenizer cannot read a text"},
    {Reason::kUnknownField, "UNKNOWN_FIELD", Code::kInvalidArgument, kNoOther,
     "a field that this server does not know"},
    {Reason::kMalformedMessage, "MALFORMED_MESSAGE", Code::kInvalidArgument, kNoOther,
     "the bytes are no message of inference.proto"},
    {Reason::kEmptyPrompt, "EMPTY_PROMPT", Code::kInvalidArgument, kNoOther,
     "the prompt has no token"},
    {Reason::kContextLengthExceeded, "CONTEXT_LENGTH_EXCEEDED", Code::kInvalidArgument, kNoOther,
     "prompt and answer do not fit the model's context"},
    {Reason::kKvPoolExceeded, "KV_POOL_EXCEEDED", Code::kInvalidArgument, kNoOther,
     "prompt and answer do not fit the whole KV cache of a group"},
    {Reason::kNothingToSend, "NOTHING_TO_SEND", Code::kInvalidArgument, kNoOther,
     "ids and text are both turned off"},
    {Reason::kNoTokenizer, "NO_TOKENIZER", Code::kInvalidArgument, Code::kFailedPrecondition,
     "text is asked of a model without a tokenizer"},
    {Reason::kStopNeverFound, "STOP_NEVER_FOUND", Code::kInvalidArgument, kNoOther,
     "a stop string that no text can contain"},
    {Reason::kUnknownRole, "UNKNOWN_ROLE", Code::kInvalidArgument, kNoOther,
     "a message's role is not known"},
    {Reason::kRoleLeftOut, "ROLE_LEFT_OUT", Code::kInvalidArgument, kNoOther,
     "the chat template leaves out messages of this role"},
    {Reason::kInvalidJson, "INVALID_JSON", Code::kInvalidArgument, kNoOther,
     "a field that must be JSON is not"},
    {Reason::kJsonTooDeep, "JSON_TOO_DEEP", Code::kInvalidArgument, kNoOther,
     "JSON is nested deeper than the server reads"},
    {Reason::kInvalidGrammar, "INVALID_GRAMMAR", Code::kInvalidArgument, kNoOther,
     "a schema, regular expression or grammar that the server cannot follow, or beyond a limit"},
    {Reason::kTemplateVariable, "TEMPLATE_VARIABLE", Code::kInvalidArgument, kNoOther,
     "a variable that a request may not set"},
    {Reason::kChatTemplateRefused, "CHAT_TEMPLATE_REFUSED", Code::kInvalidArgument, kNoOther,
     "the chat template refuses the conversation or cannot render it"},
    {Reason::kRecordInvalid, "RECORD_INVALID", Code::kInvalidArgument, kNoOther,
     "a router's record of the session contradicts itself"},
    {Reason::kModelNotFound, "MODEL_NOT_FOUND", Code::kNotFound, kNoOther,
     "another model is served"},
    {Reason::kSessionNotFound, "SESSION_NOT_FOUND", Code::kNotFound, kNoOther,
     "nothing is held under this id; a resume that comes too late"},
    {Reason::kRequestIdInUse, "REQUEST_ID_IN_USE", Code::kAlreadyExists, kNoOther,
     "the id is that of another request"},
    {Reason::kIdempotencyKeyReused, "IDEMPOTENCY_KEY_REUSED", Code::kAlreadyExists, kNoOther,
     "the key was used with another request"},
    {Reason::kNotImplemented, "NOT_IMPLEMENTED", Code::kUnimplemented, kNoOther,
     "a value that this version does not support"},
    {Reason::kNoGrammarEngine, "NO_GRAMMAR_ENGINE", Code::kUnimplemented, kNoOther,
     "guided output is asked of a build, or of workers, without it"},
    {Reason::kNoChatTemplate, "NO_CHAT_TEMPLATE", Code::kFailedPrecondition, kNoOther,
     "a chat is asked of a model without a chat template"},
    {Reason::kModelChanged, "MODEL_CHANGED", Code::kFailedPrecondition, kNoOther,
     "workers of another model came in the middle of the answer"},
    {Reason::kRecordMismatch, "RECORD_MISMATCH", Code::kFailedPrecondition, kNoOther,
     "router and scheduler hold different tokens of one answer"},
    {Reason::kFingerprintMismatch, "FINGERPRINT_MISMATCH", Code::kFailedPrecondition, kNoOther,
     "router and scheduler hold tokens of different kinds of groups"},
    {Reason::kQueueFull, "QUEUE_FULL", Code::kResourceExhausted, kNoOther,
     "as many requests or prompt tokens wait as may; with a delay"},
    {Reason::kTenantQueueFull, "TENANT_QUEUE_FULL", Code::kResourceExhausted, kNoOther,
     "as many requests or prompt tokens of the tenant wait as may; with a delay"},
    {Reason::kTenantRateLimit, "TENANT_RATE_LIMIT", Code::kResourceExhausted, kNoOther,
     "the tenant has used its tokens per minute; with a delay"},
    {Reason::kSessionMemoryFull, "SESSION_MEMORY_FULL", Code::kResourceExhausted, kNoOther,
     "the scheduler's memory for sessions is held by live requests; with a delay"},
    {Reason::kTooManyStreams, "TOO_MANY_STREAMS", Code::kResourceExhausted, kNoOther,
     "the router carries as many streams as it may; with a delay"},
    {Reason::kTokenizerBusy, "TOKENIZER_BUSY", Code::kResourceExhausted, kNoOther,
     "as many long texts wait for the tokenizer as may; with a delay"},
    {Reason::kNoScheduler, "NO_SCHEDULER", Code::kUnavailable, kNoOther,
     "no scheduler leads now; with a delay"},
    {Reason::kNoWorkers, "NO_WORKERS", Code::kUnavailable, kNoOther,
     "no group of workers can take work now; with a delay"},
    {Reason::kModelMismatch, "MODEL_MISMATCH", Code::kUnavailable, kNoOther,
     "router and workers were started on different models; with a delay"},
    {Reason::kDraining, "DRAINING", Code::kUnavailable, kNoOther,
     "the router is shutting down; with a delay"},
    {Reason::kDeadline, "DEADLINE", Code::kDeadlineExceeded, kNoOther,
     "the deadline passed before anything took the request"},
    {Reason::kDeadlineUnreachable, "DEADLINE_UNREACHABLE", Code::kDeadlineExceeded, kNoOther,
     "no token can come before the deadline; refused at once, with a delay if the queue is why"},
    {Reason::kNonFiniteLogits, "NON_FINITE_LOGITS", Code::kInternal, kNoOther,
     "a worker computed a value that is not finite"},
    {Reason::kTokenOutOfRange, "TOKEN_OUT_OF_RANGE", Code::kInternal, kNoOther,
     "a worker met a token id beyond the vocabulary"},
    {Reason::kBlockOutOfRange, "BLOCK_OUT_OF_RANGE", Code::kInternal, kNoOther,
     "a worker met a KV block beyond its pool"},
    {Reason::kEndsWorkers, "ENDS_WORKERS", Code::kInternal, kNoOther,
     "workers died each time that they computed the request, at last with this request alone"},
    {Reason::kFailedBefore, "FAILED_BEFORE", Code::kInternal, kNoOther,
     "the request failed under an earlier scheduler"},
    {Reason::kInternal, "INTERNAL", Code::kInternal, kNoOther,
     "a fault of the server; please report the message"},
    {Reason::kMissingApiKey, "MISSING_API_KEY", Code::kUnauthenticated, kNoOther,
     "the server asks for a key, and the call has none"},
    {Reason::kInvalidApiKey, "INVALID_API_KEY", Code::kUnauthenticated, kNoOther,
     "the key of the call is none of the server's"},
    {Reason::kExpiredApiKey, "EXPIRED_API_KEY", Code::kUnauthenticated, kNoOther,
     "the time of the key is over"},
    {Reason::kPermissionDenied, "PERMISSION_DENIED", Code::kPermissionDenied, kNoOther,
     "the key does not have the permission for this call"},
};

}  // namespace

std::span<const ReasonRow> Reasons() { return kReasons; }

std::string ReasonText(Reason reason) {
  return std::string(kReasons[static_cast<size_t>(reason)].text);
}

absl::Status WithReason(absl::Status status, Reason reason, std::string_view field,
                        int64_t retry_after_ms) {
  return WithDetail(std::move(status), {.reason = ReasonText(reason),
                                        .field = std::string(field),
                                        .retry_after_ms = retry_after_ms});
}

}  // namespace fathom
