// Converts RequestTimings. The enumerators have the numbers of the messages less one (phases) or
// the same numbers (ends of stays).
#include "cluster/request_timings.h"
#include "cluster/wire_parts.h"

namespace fathom {

namespace pb = cluster::v1;

namespace {

static_assert(static_cast<int>(RequestPhase::kQueued) + 1 == pb::REQUEST_PHASE_QUEUED);
static_assert(static_cast<int>(RequestPhase::kEnded) + 1 == pb::REQUEST_PHASE_ENDED);
static_assert(static_cast<int>(StayEnd::kNone) == pb::STAY_END_UNSPECIFIED);
static_assert(static_cast<int>(StayEnd::kBehind) == pb::STAY_END_BEHIND);

void WaitToWire(const WaitTimes& from, pb::WaitTimes* to) {
  to->set_slots_us(from[static_cast<size_t>(WaitLimit::kSlots)]);
  to->set_blocks_us(from[static_cast<size_t>(WaitLimit::kBlocks)]);
  to->set_no_group_us(from[static_cast<size_t>(WaitLimit::kNoGroup)]);
  to->set_other_us(from[static_cast<size_t>(WaitLimit::kOther)]);
  to->set_tenant_running_us(from[static_cast<size_t>(WaitLimit::kTenantRunning)]);
}

WaitTimes WaitFromWire(const pb::WaitTimes& from) {
  WaitTimes to = {};
  to[static_cast<size_t>(WaitLimit::kSlots)] = from.slots_us();
  to[static_cast<size_t>(WaitLimit::kBlocks)] = from.blocks_us();
  to[static_cast<size_t>(WaitLimit::kNoGroup)] = from.no_group_us();
  to[static_cast<size_t>(WaitLimit::kOther)] = from.other_us();
  to[static_cast<size_t>(WaitLimit::kTenantRunning)] = from.tenant_running_us();
  return to;
}

}  // namespace

void ToWire(const RequestTimings& from, pb::Timings* to) {
  to->Clear();
  to->set_queue_us(from.queue_us);
  to->set_prefill_us(from.prefill_us);
  to->set_decode_us(from.decode_us);
  to->set_suspensions(from.suspensions);
  to->set_earlier_us(from.earlier_us);
  to->set_suspended_us(from.suspended_us);
  to->set_replay_us(from.replay_us);
  WaitToWire(from.queue_behind_us, to->mutable_queue_behind());
  WaitToWire(from.suspended_behind_us, to->mutable_suspended_behind());
  to->set_preemptions(from.preemptions);
  to->set_stays_total(from.stays_total);
  to->set_chunks_total(from.chunks_total);
  to->set_first_token_us(from.first_token_us);
  to->set_last_token_us(from.last_token_us);
  to->set_phase(static_cast<pb::RequestPhase>(static_cast<int>(from.phase) + 1));
  for (const Stay& stay : from.stays) {
    pb::Stay* one = to->add_stays();
    one->set_group(stay.group.value);
    one->set_epoch(stay.epoch.value);
    one->set_at_us(stay.at_us);
    one->set_us(stay.us);
    one->set_end(static_cast<pb::StayEnd>(stay.end));
    one->set_prefill_us(stay.prefill_us);
  }
  for (const PromptChunk& chunk : from.chunks) {
    pb::PromptChunk* one = to->add_chunks();
    one->set_at_us(chunk.at_us);
    one->set_us(chunk.us);
    one->set_tokens(chunk.tokens);
    one->set_chunks(chunk.chunks);
  }
  for (const TokenGap& gap : from.gaps) {
    pb::TokenGap* one = to->add_gaps();
    one->set_us(gap.us);
    one->set_position(gap.position);
  }
}

RequestTimings FromWire(const pb::Timings& from) {
  RequestTimings to{.earlier_us = from.earlier_us(),
                    .queue_us = from.queue_us(),
                    .prefill_us = from.prefill_us(),
                    .decode_us = from.decode_us(),
                    .suspended_us = from.suspended_us(),
                    .replay_us = from.replay_us(),
                    .queue_behind_us = WaitFromWire(from.queue_behind()),
                    .suspended_behind_us = WaitFromWire(from.suspended_behind()),
                    .suspensions = from.suspensions(),
                    .preemptions = from.preemptions(),
                    .stays_total = from.stays_total(),
                    .chunks_total = from.chunks_total(),
                    .first_token_us = from.first_token_us(),
                    .last_token_us = from.last_token_us()};
  // A scheduler of an earlier build sends no phase; it sends timings only at the end.
  to.phase = from.phase() == pb::REQUEST_PHASE_UNSPECIFIED
                 ? RequestPhase::kEnded
                 : static_cast<RequestPhase>(from.phase() - 1);
  for (const pb::Stay& stay : from.stays()) {
    to.stays.push_back({GroupId{stay.group()}, EpochId{stay.epoch()}, stay.at_us(), stay.us(),
                        static_cast<StayEnd>(stay.end()), stay.prefill_us()});
  }
  for (const pb::PromptChunk& chunk : from.chunks()) {
    to.chunks.push_back({chunk.at_us(), chunk.us(), chunk.tokens(), chunk.chunks()});
  }
  for (const pb::TokenGap& gap : from.gaps()) to.gaps.push_back({gap.us(), gap.position()});
  return to;
}

}  // namespace fathom
