#include "cluster/wire_ranges.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/reflection.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <vector>

#include "cluster.pb.h"
#include "cluster/group_start.h"
#include "cluster/protocol.h"
#include "cluster/rank_report.h"
#include "cluster/request.h"
#include "cluster/request_timings.h"
#include "common/check.h"
#include "common/group_shape.h"
#include "common/sampling_fields.h"

namespace fathom {
namespace {

using google::protobuf::FieldDescriptor;
using ProtoMessage = google::protobuf::Message;
using google::protobuf::Reflection;

constexpr double kAny = std::numeric_limits<double>::infinity();  // With -kAny: every number.
constexpr double kNumberMax = 4611686018427387904.0;              // 2^62: terms, epochs, steps.
constexpr double kTokensMax = 1 << 27;  // As in a public request (router/api/field_limits.cc).
constexpr double kTokenIdMax = (1 << 24) - 1;
constexpr double kBlocksMax = 1 << 24;
constexpr double kSlotsMax = 1 << 16;
constexpr double kRowsMax = 1 << 20;  // Rows of a step.
constexpr double kSequenceMax = kSequencesMax - 1;
constexpr double kRankMax = 4095;
constexpr double kIndexMax = std::numeric_limits<int32_t>::max();
constexpr double kDurationMsMax =
    1099511627776.0;  // 2^40 ms are 35 years; a longer value is invalid.
constexpr double kTimeUsMax = 9007199254740992.0;  // 2^53.
constexpr double kNameBytes = 256;
constexpr double kTextBytes = 64 << 10;  // Messages for people.
constexpr double kDigestBytes = 128;
constexpr double kBlobBytes = kClusterMessageBytesMax;
constexpr double kLeast = std::numeric_limits<float>::denorm_min();
constexpr int32_t kListMax = 1 << 27;

constexpr WireRange kOtherRanges[] = {
    {"StepsHello.term", 0, kNumberMax},
    {"StepsHello.epoch", 0, kNumberMax},
    {"StepsHello.rank", 0, kRankMax},
    {"StepsHello.process_id", 0, kDigestBytes},
    {"Hello.process_id", 0, kDigestBytes},
    {"Hello.role"},
    {"Hello.protocol_min", 0, 65535},
    {"Hello.protocol_max", 0, 65535},
    {"Hello.features", 0, kNameBytes, 256},
    {"Hello.build", 0, kNameBytes},
    {"Hello.term_seen", 0, kNumberMax},
    {"Hello.config_digest", 0, kDigestBytes},
    {"WorkerHello.host", 0, kNameBytes},
    {"WorkerHello.device", 0, kNameBytes},
    {"WorkerHello.memory_bytes", 0, kNumberMax},
    {"WorkerHello.model", 0, kNameBytes},
    {"WorkerHello.weights_digest", 0, kDigestBytes},
    {"WorkerHello.fingerprint", 0, kDigestBytes},
    {"WorkerHello.tp", 1, kGroupRanksMax},
    {"WorkerHello.pp", 1, kGroupRanksMax},
    {"WorkerHello.preferred_rank", -1, kRankMax},
    {"WorkerHello.health_address", 0, kNameBytes + 64},
    {"WorkerHello.device_kind", 0, kNameBytes},
    {"WorkerHello.dtype", 0, kNameBytes},
    {"WorkerHello.recipe", 0, kRowsMax},
    {"WorkerHello.card", 0, kNameBytes},
    {"WorkerHello.machine", 0, kNameBytes},
    {"WorkerHello.shared_memory", 0, kNameBytes},
    {"WorkerHello.startup", 0, 0, kStartMarksMax},
    {"WorkerHello.age_us", 0, kTimeUsMax},
    {"WorkerHello.proposer", 0, kNameBytes},
    {"StartMark.phase"},
    {"StartMark.at_us", 0, kTimeUsMax},
    {"StartMark.bytes", 0, kNumberMax},
    {"RankStart.rank", 0, kRankMax},
    {"RankStart.process_id", 0, kDigestBytes},
    {"RankStart.host", 0, kNameBytes},
    {"RankStart.marks", 0, 0, kStartMarksMax},
    {"GroupStart.group", 0, kIndexMax},
    {"GroupStart.epoch", 0, kNumberMax},
    {"GroupStart.us", 0, kTimeUsMax},
    {"GroupStart.ranks", 0, 0, kGroupRanksMax},
    {"WorkerLimits.context_tokens", 1, kTokensMax},
    {"WorkerLimits.block_tokens", 1, 1024},
    {"WorkerLimits.pool_blocks", 2, kBlocksMax},
    {"WorkerLimits.slots", 1, kSlotsMax},
    {"WorkerLimits.step_tokens", 1, kRowsMax},
    {"WorkerLimits.vocab", 1, kTokenIdMax + 1},
    {"WorkerLimits.mixed_step_tokens", 0, kRowsMax},
    {"WorkerLimits.host_blocks", 0, kBlocksMax},
    {"WorkerLimits.draft_max", 0, kDraftsMax},
    {"StepMark.term", 0, kNumberMax},
    {"StepMark.epoch", 0, kNumberMax},
    {"StepMark.step", 0, kNumberMax},
    {"SchedulerHello.term", 0, kNumberMax},
    {"SchedulerHello.model", 0, kNameBytes},
    {"SchedulerHello.config_digest", 0, kDigestBytes},
    {"SchedulerHello.fingerprint", 0, kDigestBytes},
    {"SchedulerHello.context_tokens", 0, kTokensMax},
    {"SchedulerHello.block_tokens", 0, 1024},
    {"SchedulerHello.pool_blocks", 0, kBlocksMax},
    {"SchedulerHello.groups", 0, kRowsMax},
    {"SchedulerHello.vocab", 0, kTokenIdMax + 1},
    {"SchedulerHello.device_kind", 0, kNameBytes},
    {"SchedulerHello.dtype", 0, kNameBytes},
    {"SchedulerHello.starts", 0, 0, kGroupStartsMax},
    {"Heartbeat.term", 0, kNumberMax},
    {"Heartbeat.phase"},
    {"Heartbeat.step", -kAny, kAny},
    {"Heartbeat.op", -kAny, kAny},
    {"Heartbeat.collective", -kAny, kAny},
    {"Heartbeat.progress", -kAny, kAny},
    {"Heartbeat.activity"},
    {"Heartbeat.layer", 0, kRowsMax},
    {"Heartbeat.step_collectives", -kAny, kAny},
    {"Resign.term", 0, kNumberMax},
    {"Drain.grace_ms", 0, kDurationMsMax},
    {"SessionKey.tenant", 0, kNameBytes},
    {"SessionKey.request_id", 0, kNameBytes},
    {"Sampling.logit_bias", 0, 0, kLogitBiasMax},
    {"LogitBias.id", 0, kTokenIdMax},
    {"LogitBias.bias", kSuppressedBias, 100},
    {"Request.max_tokens", 0, kTokensMax},
    {"Request.min_tokens", 0, kTokensMax},
    {"Request.end_token_ids", 0, kTokenIdMax, kEndTokensMax},
    {"Request.stop_token_ids", 0, kTokenIdMax, kStopTokensMax},
    {"Request.logprobs", 0, kTopLogprobsMax},
    {"Request.prompt_logprobs", 0, kTopLogprobsMax},
    {"Request.n", 0, kSequencesMax},
    {"TokenLogprob.id", 0, kTokenIdMax},
    {"TokenLogprob.logprob", -kAny, 1},
    {"TokenLogprob.top_ids", 0, kTokenIdMax, kTopLogprobsMax},
    {"TokenLogprob.top_logprobs", -kAny, 1, kTopLogprobsMax},
    {"PromptLogprobs.start", 1, kTokensMax},
    {"PromptLogprobs.logprobs", 0, 0, kListMax},
    {"SequenceRecord.ids", 0, kTokenIdMax, kListMax},
    {"SequenceRecord.logprobs", 0, 0, kListMax},
    {"SequenceRecord.finish"},
    {"ComputeKind.model_digest", 0, kDigestBytes},
    {"ComputeKind.dtype", 0, kNameBytes},
    {"ComputeKind.device_kind", 0, kNameBytes},
    {"ComputeKind.tp", 0, kGroupRanksMax},
    {"ComputeKind.recipe", 0, kRowsMax},
    {"FingerprintSpan.position", 0, kTokensMax},
    {"FingerprintSpan.fingerprint", 0, kDigestBytes},
    {"FingerprintSpan.sequence", 0, kSequenceMax},
    {"Record.model", 0, kNameBytes},
    {"Record.seed", -kAny, kAny},
    {"Record.prompt_ids", 0, kTokenIdMax, kListMax},
    {"Record.sequences", 0, 0, kSequencesMax},
    {"Record.fingerprints", 0, 0, 4096},
    {"Record.prompt_logprobs", 0, 0, kListMax},
    {"Record.priority", -kPriorityMax, kPriorityMax},
    {"CacheParams.salt", 0, kCacheSaltBytesMax},
    {"Submit.attempt", -kAny, kAny},
    {"Submit.router_blob", 0, kBlobBytes},
    {"Submit.have", 0, kTokensMax, kSequencesMax},
    {"Submit.deadline_ms", 0, kDurationMsMax},
    {"Submit.age_ms", 0, kDurationMsMax},
    {"Submit.traceparent", 0, kNameBytes},
    {"Suspend.attempt", -kAny, kAny},
    {"Close.sequence", 0, kSequenceMax},
    {"Close.length", 0, kTokensMax},
    {"Close.reason"},
    {"Accepted.attempt", -kAny, kAny},
    {"Accepted.request_id", 0, kNameBytes},
    {"Accepted.seed", -kAny, kAny},
    {"Accepted.cached_tokens", 0, kTokensMax},
    {"Accepted.router_blob", 0, kBlobBytes},
    {"Refused.attempt", -kAny, kAny},
    {"Refused.code", 0, 16},
    {"Refused.reason", 0, kNameBytes},
    {"Refused.field", 0, kNameBytes},
    {"Refused.message", 0, kTextBytes},
    {"Refused.retry_after_ms", 0, kDurationMsMax},
    {"Usage.prompt_tokens", 0, kTokensMax},
    {"Usage.completion_tokens", 0, kTokensMax},
    {"Usage.cached_tokens", 0, kTokensMax},
    {"Usage.drafted_tokens", 0, kIndexMax},
    {"Usage.accepted_draft_tokens", 0, kTokensMax},
    {"Timings.queue_us", 0, kTimeUsMax},
    {"Timings.prefill_us", 0, kTimeUsMax},
    {"Timings.decode_us", 0, kTimeUsMax},
    {"Timings.suspensions", 0, kIndexMax},
    {"Timings.earlier_us", 0, kTimeUsMax},
    {"Timings.suspended_us", 0, kTimeUsMax},
    {"Timings.replay_us", 0, kTimeUsMax},
    {"Timings.preemptions", 0, kIndexMax},
    {"Timings.stays_total", 0, kIndexMax},
    {"Timings.chunks_total", 0, kIndexMax},
    {"Timings.first_token_us", -1, kTimeUsMax},
    {"Timings.last_token_us", -1, kTimeUsMax},
    {"Timings.phase"},
    {"Timings.stays", 0, 0, kStaysMax},
    {"Timings.chunks", 0, 0, kChunksMax},
    {"Timings.gaps", 0, 0, kTokenGapsMax},
    {"WaitTimes.slots_us", 0, kTimeUsMax},
    {"WaitTimes.blocks_us", 0, kTimeUsMax},
    {"WaitTimes.no_group_us", 0, kTimeUsMax},
    {"WaitTimes.other_us", 0, kTimeUsMax},
    {"WaitTimes.tenant_running_us", 0, kTimeUsMax},
    {"Stay.group", 0, kIndexMax},
    {"Stay.epoch", 0, kNumberMax},
    {"Stay.at_us", 0, kTimeUsMax},
    {"Stay.us", 0, kTimeUsMax},
    {"Stay.end"},
    {"Stay.prefill_us", 0, kTimeUsMax},
    {"PromptChunk.at_us", 0, kTimeUsMax},
    {"PromptChunk.us", 0, kTimeUsMax},
    {"PromptChunk.tokens", 0, kTokensMax},
    {"PromptChunk.chunks", 0, kIndexMax},
    {"TokenGap.us", 0, kTimeUsMax},
    {"TokenGap.position", 0, kTokensMax},
    {"Finish.reason"},
    {"ExplainAsk.ask", -kAny, kAny},
    {"Explained.ask", -kAny, kAny},
    {"Explained.prompt_tokens", 0, kTokensMax},
    {"Explained.generated_tokens", 0, kTokensMax},
    {"Explained.max_tokens", 0, kTokensMax},
    {"Error.code", 0, 16},
    {"Error.reason", 0, kNameBytes},
    {"Error.message", 0, kTextBytes},
    {"Frame.attempt", -kAny, kAny},
    {"Frame.sequence", 0, kSequenceMax},
    {"Frame.position", 0, kTokensMax},
    {"Frame.ids", 0, kTokenIdMax, kListMax},
    {"Frame.logprobs", 0, 0, kListMax},
    {"Frame.fingerprint", 0, kDigestBytes},
    {"Frames.term", 0, kNumberMax},
    {"Frames.frames", 0, 0, kListMax},
    {"Stats.requests_running", 0, kIndexMax},
    {"Stats.requests_waiting", 0, kIndexMax},
    {"Stats.blocks_total", 0, kIndexMax},
    {"Stats.blocks_used", 0, kIndexMax},
    {"Stats.groups", 0, kIndexMax},
    {"Stats.suspensions_total", -kAny, kAny},
    {"Stats.prompt_tokens_total", -kAny, kAny},
    {"Stats.generation_tokens_total", -kAny, kAny},
    {"Stats.last_loss", 0, kTextBytes},
    {"Stats.losses_alike", 0, kIndexMax},
    {"Stats.waiting", 0, kTextBytes},
    {"Stats.ranks", 0, 0, kRankReportsMax},
    {"Stats.step_tokens", -kAny, kAny, 64},
    {"Stats.step_tokens_sum", -kAny, kAny},
    {"WaitCounts.slots", 0, kIndexMax},
    {"WaitCounts.blocks", 0, kIndexMax},
    {"WaitCounts.no_group", 0, kIndexMax},
    {"WaitCounts.other", 0, kIndexMax},
    {"RankReport.group", 0, kIndexMax},
    {"RankReport.rank", 0, kRankMax},
    {"RankReport.process_id", 0, kDigestBytes},
    {"RankReport.host", 0, kNameBytes},
    {"RankReport.phase"},
    {"RankReport.step", -kAny, kAny},
    {"RankReport.activity"},
    {"RankReport.layer", 0, kRowsMax},
    {"RankReport.step_collectives", -kAny, kAny},
    {"RankReport.still_us", 0, kTimeUsMax},
    {"RankReport.waits_for", 0, kRankMax + 1},
    {"RankReport.address", 0, kNameBytes + 64},
    {"RankReport.card", 0, kNameBytes},
    {"Group.term", 0, kNumberMax},
    {"Group.epoch", 0, kNumberMax},
    {"Group.tp", 1, kGroupRanksMax},
    {"Group.pp", 1, kGroupRanksMax},
    {"Group.rank", 0, kRankMax},
    {"Group.peers", 0, 0, kGroupRanksMax},
    {"Group.blocks", 2, kBlocksMax},
    {"Group.group", 0, kIndexMax},
    {"Peer.process_id", 0, kDigestBytes},
    {"Peer.host", 0, kNameBytes},
    {"Peer.machine", 0, kNameBytes},
    {"Peer.shared_memory", 0, kNameBytes},
    {"GroupExchange.epoch", 0, kNumberMax},
    {"GroupExchange.round", 0, kRowsMax},
    {"GroupExchange.rank", 0, kRankMax},
    {"GroupExchange.bytes", 0, kExchangeBytesMax},
    {"GroupReady.term", 0, kNumberMax},
    {"GroupReady.epoch", 0, kNumberMax},
    {"GroupReady.rank", 0, kRankMax},
    {"GroupReady.startup", 0, 0, kStartMarksMax},
    {"GroupFailed.term", 0, kNumberMax},
    {"GroupFailed.epoch", 0, kNumberMax},
    {"GroupFailed.rank", 0, kRankMax},
    {"GroupFailed.message", 0, kTextBytes},
    {"Abort.term", 0, kNumberMax},
    {"Abort.epoch", 0, kNumberMax},
    {"Abort.reason", 0, kTextBytes},
    {"BlockCopy.kind"},
    {"BlockCopy.from", 0, kBlocksMax},
    {"BlockCopy.to", 0, kBlocksMax},
    {"BlockCopy.block_kind"},
    {"Admit.slot", 0, kSlotsMax},
    {"Admit.seed", -kAny, kAny},
    {"Admit.sequence", 0, kSequenceMax},
    {"Admit.prompt_tokens", 0, kTokensMax},
    {"Admit.computed_tokens", 0, kTokensMax},
    {"Admit.ids", 0, kTokenIdMax, kAdmitIdsMax},
    {"Admit.grammar_digest", 0, kDigestBytes},
    {"Admit.traceparent", 0, kNameBytes},
    {"Extend.slot", 0, kSlotsMax},
    {"Extend.block_ids", 0, kBlocksMax, static_cast<int32_t>(kBlocksMax)},
    {"Extend.block_kind"},
    {"Decode.fed_by_step", 0, kNumberMax},
    {"Decode.draft_max", 0, kDraftsMax},
    {"Chunk.slot", 0, kSlotsMax},
    {"Chunk.count", 1, kRowsMax},
    {"Chunk.arithmetic"},
    {"StepPlan.term", 0, kNumberMax},
    {"StepPlan.epoch", 0, kNumberMax},
    {"StepPlan.step", 0, kNumberMax},
    {"StepPlan.copies", 0, 0, static_cast<int32_t>(kBlocksMax)},
    {"StepPlan.releases", 0, kSlotsMax, static_cast<int32_t>(kSlotsMax)},
    {"StepPlan.admits", 0, 0, static_cast<int32_t>(kSlotsMax)},
    {"StepPlan.extends", 0, 0, static_cast<int32_t>(kSlotsMax)},
    {"StepPlan.chunks", 0, 0, static_cast<int32_t>(kSlotsMax)},
    {"ResultRow.row", 0, kSlotsMax},
    {"ResultRow.sequence", 0, kSequenceMax},
    {"ResultRow.position", 0, kTokensMax},
    {"ResultRow.ids", 0, kTokenIdMax, kDraftsMax + 1},
    {"ResultRow.logprobs", 0, 0, kDraftsMax + 1},
    {"ResultRow.fault"},
    {"ResultRow.fault_detail", 0, kTextBytes / 2},
    {"ResultRow.drafted", 0, kDraftsMax},
    {"StepTimings.read_to_write_us", -kTimeUsMax, kTimeUsMax},
    {"StepTimings.compute_us", -kTimeUsMax, kTimeUsMax},
    {"StepTimings.collective_us", -kTimeUsMax, kTimeUsMax},
    {"StepTimings.swap_us", -kTimeUsMax, kTimeUsMax},
    {"StepResult.term", 0, kNumberMax},
    {"StepResult.epoch", 0, kNumberMax},
    {"StepResult.step", 0, kNumberMax},
    {"StepResult.rank", 0, kRankMax},
    {"StepResult.rows", 0, 0, static_cast<int32_t>(kSlotsMax)},
    {"StepResult.collectives", -kAny, kAny},
};

constexpr auto kRanges = [] {
  std::array<WireRange, kSamplingFieldCount + std::size(kOtherRanges)> ranges;
  WireRange* next = ranges.data();
  for (const SamplingField& row : kSamplingFields) {
    *next++ = {row.wire_name, row.min_excluded ? row.min + kLeast : row.min, row.max};
  }
  std::copy(std::begin(kOtherRanges), std::end(kOtherRanges), next);
  return ranges;
}();

// A field and its row of the table; looked up once per process.
struct Rule {
  const FieldDescriptor* field;
  WireRange range;
};

absl::Status Outside(const Rule& rule, const std::string& value, const char* what = "") {
  return Invalid(
      "{}.{}{}: {} is not within {:.15g} and {:.15g}; the sender is of another build, or "
      "no process of this cluster",
      rule.field->containing_type()->name(), rule.field->name(), what, value, rule.range.min,
      rule.range.max);
}

template <class T>
absl::Status CheckNumber(const Rule& rule, T value) {
  // The comparison is written so that NaN fails. No integer beyond 2^53 is close to a limit, except
  // 2^62 itself.
  const auto number = static_cast<double>(value);
  if (number >= rule.range.min && number <= rule.range.max) return absl::OkStatus();
  return Outside(rule, fmt::format("{}", value));
}

absl::Status CheckText(const Rule& rule, const std::string& text) {
  if (static_cast<double>(text.size()) <= rule.range.max) return absl::OkStatus();
  return Outside(rule, std::to_string(text.size()), " (bytes)");
}

absl::Status CheckEnum(const Rule& rule, int value) {
  if (rule.field->enum_type()->FindValueByNumber(value) != nullptr) return absl::OkStatus();
  return Invalid("{}.{}: {} is not a {} that this build knows; run builds that are closer",
                 rule.field->containing_type()->name(), rule.field->name(), value,
                 rule.field->enum_type()->name());
}

template <class T>
absl::Status CheckNumbers(const Rule& rule, const ProtoMessage& message,
                          const Reflection& reflection) {
  for (const T value : reflection.GetRepeatedFieldRef<T>(message, rule.field)) {
    FATHOM_RETURN_IF_ERROR(CheckNumber(rule, value));
  }
  return absl::OkStatus();
}

absl::Status CheckList(const Rule& rule, const ProtoMessage& message,
                       const Reflection& reflection) {
  const int count = reflection.FieldSize(message, rule.field);
  if (count == 0) return absl::OkStatus();
  if (count > rule.range.count_max) {
    return Invalid(
        "{}.{}: {} items, at most {}; the sender is of another build, or no process of "
        "this cluster",
        rule.field->containing_type()->name(), rule.field->name(), count, rule.range.count_max);
  }
  switch (rule.field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return CheckNumbers<int32_t>(rule, message, reflection);
    case FieldDescriptor::CPPTYPE_UINT64:
      return CheckNumbers<uint64_t>(rule, message, reflection);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return CheckNumbers<float>(rule, message, reflection);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      for (int i = 0; i < count; ++i) {
        FATHOM_RETURN_IF_ERROR(CheckRanges(reflection.GetRepeatedMessage(message, rule.field, i)));
      }
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string scratch;
      for (int i = 0; i < count; ++i) {
        FATHOM_RETURN_IF_ERROR(CheckText(
            rule, reflection.GetRepeatedStringReference(message, rule.field, i, &scratch)));
      }
      return absl::OkStatus();
    }
    default:
      break;
  }
  FATHOM_CHECK(false, "a list of a type that cluster.proto does not use: {}",
               rule.field->full_name());
  return absl::OkStatus();
}

absl::Status CheckOne(const Rule& rule, const ProtoMessage& message, const Reflection& reflection) {
  if (rule.field->has_presence() && !reflection.HasField(message, rule.field)) {
    return absl::OkStatus();
  }
  switch (rule.field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return CheckNumber(rule, reflection.GetInt32(message, rule.field));
    case FieldDescriptor::CPPTYPE_INT64:
      return CheckNumber(rule, reflection.GetInt64(message, rule.field));
    case FieldDescriptor::CPPTYPE_UINT32:
      return CheckNumber(rule, reflection.GetUInt32(message, rule.field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return CheckNumber(rule, reflection.GetUInt64(message, rule.field));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return CheckNumber(rule, reflection.GetFloat(message, rule.field));
    case FieldDescriptor::CPPTYPE_ENUM:
      return CheckEnum(rule, reflection.GetEnumValue(message, rule.field));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return CheckRanges(reflection.GetMessage(message, rule.field));
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string scratch;
      return CheckText(rule, reflection.GetStringReference(message, rule.field, &scratch));
    }
    default:
      break;
  }
  FATHOM_CHECK(false, "a type that cluster.proto does not use: {}", rule.field->full_name());
  return absl::OkStatus();
}

// The rules of each message, by its index in the file.
std::vector<std::vector<Rule>> MakeRules() {
  const auto* file = cluster::v1::Hello::descriptor()->file();
  std::vector<std::vector<Rule>> rules(static_cast<size_t>(file->message_type_count()));
  for (int m = 0; m < file->message_type_count(); ++m) {
    const google::protobuf::Descriptor* type = file->message_type(m);
    for (int f = 0; f < type->field_count(); ++f) {
      const FieldDescriptor* field = type->field(f);
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) continue;
      const std::string name = type->name() + "." + field->name();
      const auto row = std::find_if(std::begin(kRanges), std::end(kRanges),
                                    [&](const WireRange& range) { return range.field == name; });
      const bool one_message =
          field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_repeated();
      FATHOM_CHECK(one_message || row != std::end(kRanges), "{} has no row in wire_ranges.cc",
                   name);
      rules[static_cast<size_t>(m)].push_back({field, one_message ? WireRange{} : *row});
    }
  }
  return rules;
}

}  // namespace

std::span<const WireRange> WireRanges() { return kRanges; }

absl::Status CheckRanges(const ProtoMessage& message) {
  static const auto& kRules = *new std::vector<std::vector<Rule>>(MakeRules());
  const google::protobuf::Descriptor* type = message.GetDescriptor();
  const Reflection& reflection = *message.GetReflection();
  for (const Rule& rule : kRules[static_cast<size_t>(type->index())]) {
    FATHOM_RETURN_IF_ERROR(rule.field->is_repeated() ? CheckList(rule, message, reflection)
                                                     : CheckOne(rule, message, reflection));
  }
  return absl::OkStatus();
}

}  // namespace fathom
