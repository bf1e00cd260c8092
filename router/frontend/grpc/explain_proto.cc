// Converts the report of a request to a message of Explain.
#include "common/utf8.h"
#include "router/frontend/grpc/answer_proto.h"

namespace fathom::router {
namespace {

using Parts = google::protobuf::RepeatedPtrField<v1::TimePart>;

void AddPart(const char* name, int64_t us, Parts* to) {
  v1::TimePart* part = to->Add();
  part->set_name(name);
  part->set_us(us);
}

void FillWaits(const WaitTimes& from, Parts* to) {
  for (size_t i = 0; i < kWaitLimits; ++i) {
    AddPart(WaitLimitName(static_cast<WaitLimit>(i)), from[i], to);
  }
}

void FillTimings(const RequestTimings& from, v1::Explanation* to) {
  to->set_scheduler_known(true);
  to->set_phase(RequestPhaseName(from.phase));
  Parts* parts = to->mutable_parts();
  AddPart("earlier", from.earlier_us, parts);
  AddPart("queue", from.queue_us, parts);
  AddPart("prefill", from.prefill_us, parts);
  AddPart("decode", from.decode_us, parts);
  AddPart("suspended", from.suspended_us, parts);
  AddPart("replay", from.replay_us, parts);
  FillWaits(from.queue_behind_us, to->mutable_queue_behind());
  FillWaits(from.suspended_behind_us, to->mutable_suspended_behind());
  for (const Stay& stay : from.stays) {
    v1::SlotStay* one = to->add_stays();
    one->set_group(stay.group.value);
    one->set_epoch(stay.epoch.value);
    one->set_at_us(stay.at_us);
    one->set_us(stay.us);
    one->set_end(StayEndName(stay.end));
    one->set_prefill_us(stay.prefill_us);
  }
  to->set_stays_total(from.stays_total);
  for (const PromptChunk& chunk : from.chunks) {
    v1::PromptChunk* one = to->add_chunks();
    one->set_at_us(chunk.at_us);
    one->set_us(chunk.us);
    one->set_tokens(chunk.tokens);
    one->set_chunks(chunk.chunks);
  }
  to->set_chunks_total(from.chunks_total);
  for (const TokenGap& gap : from.gaps) {
    v1::TokenGap* one = to->add_gaps();
    one->set_us(gap.us);
    one->set_position(gap.position);
  }
  if (from.first_token_us >= 0) to->set_first_token_us(from.first_token_us);
  if (from.last_token_us >= 0) to->set_last_token_us(from.last_token_us);
  to->set_suspensions(from.suspensions);
  to->set_preemptions(from.preemptions);
}

}  // namespace

v1::Explanation ToProto(const RequestReport& report) {
  v1::Explanation to;
  to.set_request_id(ToUtf8(report.key.request_id));
  to.set_model(report.model);
  to.set_outcome(report.outcome);
  to.set_reason(report.reason);
  to.set_message(ToUtf8(report.message));
  to.set_whole_us(report.whole_us);
  AddPart("transport", report.TransportUs(), to.mutable_parts());
  if (report.timings) FillTimings(*report.timings, &to);
  if (report.first_token_us >= 0) to.set_first_token_seen_us(report.first_token_us);
  to.set_submits(report.submits);
  to.mutable_usage()->set_prompt_tokens(report.usage.prompt_tokens);
  to.mutable_usage()->set_completion_tokens(report.usage.completion_tokens);
  to.mutable_usage()->set_cached_tokens(report.usage.cached_tokens);
  to.mutable_usage()->set_drafted_tokens(report.usage.drafted_tokens);
  to.mutable_usage()->set_accepted_draft_tokens(report.usage.accepted_draft_tokens);
  to.set_max_tokens(report.max_tokens);
  to.set_sequences(report.sequences);
  if (report.ended_ago_us >= 0) to.set_ended_ago_us(report.ended_ago_us);
  return to;
}

}  // namespace fathom::router
