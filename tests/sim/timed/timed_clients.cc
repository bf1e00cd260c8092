// Clients of a TimedWorld: conversations of one turn after another, and what they get.
#include <algorithm>
#include <utility>

#include "common/reason.h"
#include "tests/sim/model.h"
#include "tests/sim/timed/timed_world.h"

namespace fathom::sim {
namespace {

// Adds `count` tokens that follow from `stream`.
void AddTokens(uint64_t stream, int32_t count, std::vector<TokenId>* ids) {
  for (int32_t i = 0; i < count; ++i) {
    ids->push_back(static_cast<TokenId>(Mix(stream, static_cast<uint64_t>(i)) % 32'000));
  }
}

}  // namespace

void TimedWorld::StartTurn(size_t index, int32_t turn, std::vector<TokenId> history) {
  const Conversation& conversation = options_.traffic[index];
  const client::TurnPlan& plan = conversation.plan.turns[static_cast<size_t>(turn)];
  // Conversations with the same prefix number begin with the same tokens, also those of two
  // tenants.
  if (turn == 0) {
    AddTokens(Mix(1, static_cast<uint64_t>(conversation.plan.prefix)),
              conversation.plan.prefix_tokens, &history);
  }
  const uint64_t own = Mix(Mix(2, conversation.seed), static_cast<uint64_t>(conversation.number));
  AddTokens(Mix(own, static_cast<uint64_t>(turn)), plan.new_tokens, &history);
  const size_t call = calls_.size();
  Record record;
  record.key = {conversation.tenant, fmt::format("request-{}", call)};
  record.seed = call + 1;
  record.prompt_ids = std::move(history);
  record.request.stop.max_tokens = plan.output_tokens;
  record.sequences.resize(1);
  calls_.push_back({.conversation = index,
                    .turn = turn,
                    .tenant = conversation.tenant,
                    .prompt_tokens = static_cast<int32_t>(record.prompt_ids.size()),
                    .max_tokens = plan.output_tokens,
                    .due_us = now_,
                    .record = std::move(record),
                    .core = next_core_++ % cores_.size()});
  Submit(call, false);
}

void TimedWorld::Submit(size_t index, bool replay) {
  Call& call = calls_[index];
  call.router = routers_[Draw(routers_.size())];
  call.attempt = AttemptId{next_attempt_++};
  attempts_[call.attempt] = index;
  fathom::Submit submit{.attempt = call.attempt,
                        .key = call.record.key,
                        .record = call.record,
                        .have = {call.tokens},
                        .replay = replay,
                        .age_us = call.accepted_us > 0 ? now_ - call.accepted_us : 0};
  At(Arrival(&up_lane_us_[call.router]),
     [this, core = call.core, router = call.router, submit = std::move(submit)]() mutable {
       const bool connected = std::ranges::find(routers_, router) != routers_.end();
       if (connected) Feed(core, scheduler::Routed<fathom::Submit>{router, std::move(submit)});
     });
}

// The order of acceptance is the core's, so it is noted when the core answers, not when the
// router hears of it.
void TimedWorld::OnAccepted(const Accepted& accepted, size_t core) {
  const auto found = attempts_.find(accepted.attempt);
  if (found == attempts_.end()) return;
  Call& call = calls_[found->second];
  if (call.accepted_us != 0) return;
  call.accepted_us = now_;
  call.place = next_place_++;
  if (!call.seated) cores_[core].unseated[call.tenant].insert({call.place, found->second});
}

Call* TimedWorld::Attached(AttemptId attempt) {
  const auto found = attempts_.find(attempt);
  if (found == attempts_.end()) return nullptr;
  Call& call = calls_[found->second];
  return call.attempt == attempt && call.end_us == 0 ? &call : nullptr;
}

void TimedWorld::OnRefused(const Refused& refused) {
  Call* call = Attached(refused.attempt);
  if (call == nullptr) return;
  if (refused.status.code() != absl::StatusCode::kResourceExhausted) {
    Fail("refused: " + ToString(refused.status));
  }
  call->refused = true;
  End(call->record.seed - 1);
}

void TimedWorld::OnFrame(const Frame& frame) {
  Call* call = Attached(frame.attempt);
  if (call == nullptr) {
    const auto found = attempts_.find(frame.attempt);
    const bool twice = found != attempts_.end() && calls_[found->second].attempt == frame.attempt;
    if (twice) Fail("a frame after the end");
    return;
  }
  std::vector<TokenId>& ids = call->record.sequences[0].ids;
  if (frame.position != call->tokens) {
    return Fail(fmt::format("{}: position {}, not {}", call->record.key.request_id, frame.position,
                            call->tokens));
  }
  for (const TokenId id : frame.ids) {
    if (id != TimedToken(call->record.seed, call->tokens)) {
      return Fail(fmt::format("{}: a wrong token {}", call->record.key.request_id, call->tokens));
    }
    ids.push_back(id);
    ++call->tokens;
  }
  if (!frame.ids.empty()) {
    if (call->first_us == 0) call->first_us = now_;
    if (call->last_us != 0) call->gap_us_max = std::max(call->gap_us_max, now_ - call->last_us);
    call->last_us = now_;
  }
  if (!frame.fingerprint.empty() && call->record.sequences[0].fingerprints.empty()) {
    call->record.sequences[0].fingerprints = {{0, frame.fingerprint, frame.kind}};
  }
  if (!frame.error.ok()) {
    Fail(ToString(frame.error));
    call->failed = true;
  }
  if (!frame.finish && frame.error.ok()) return;
  if (frame.finish) {
    call->cached_tokens = frame.finish->usage.cached_tokens;
    if (frame.finish->reason != FinishReason::kLength || call->tokens != call->max_tokens) {
      Fail(fmt::format("{}: ends by {} after {} of {} tokens", call->record.key.request_id,
                       FinishReasonName(frame.finish->reason), call->tokens, call->max_tokens));
    }
  }
  End(call->record.seed - 1);
}

void TimedWorld::End(size_t index) {
  Call& call = calls_[index];
  if (call.end_us != 0) return Fail("a request ended twice");
  call.end_us = now_;
  if (call.refused && call.accepted_us != 0) Fail("a request was refused after it was accepted");
  const Conversation& conversation = options_.traffic[call.conversation];
  const auto next = static_cast<size_t>(call.turn) + 1;
  Record record = std::move(call.record);
  call.record = {.key = {}, .seed = record.seed};
  if (next == conversation.plan.turns.size() || !call.answered()) {
    --open_;
    return;
  }
  std::vector<TokenId> history = std::move(record.prompt_ids);
  history.insert(history.end(), record.sequences[0].ids.begin(), record.sequences[0].ids.end());
  const auto pause_us = static_cast<TimeUs>(conversation.plan.turns[next].pause_s * 1e6);
  At(now_ + pause_us, [this, at = call.conversation, next, history = std::move(history)]() mutable {
    StartTurn(at, static_cast<int32_t>(next), std::move(history));
  });
}

void TimedWorld::LoseRouter(size_t index) {
  const PeerId gone = routers_[index];
  ++report_.router_losses;
  routers_[index] = PeerId{next_peer_++};
  At(Arrival(&up_lane_us_[gone]), [this, gone] {
    for (size_t i = 0; i < cores_.size(); ++i) Feed(i, scheduler::RouterLost{gone});
  });
  for (size_t i = 0; i < calls_.size(); ++i) {
    Call& call = calls_[i];
    if (call.end_us != 0 || call.router != gone) continue;
    call.attempt = {};  // Nothing that was sent to the lost router arrives.
    At(now_ + 1000 + static_cast<TimeUs>(Draw(500'000)), [this, i, gone] {
      if (calls_[i].end_us == 0 && calls_[i].router == gone) Submit(i, calls_[i].accepted_us > 0);
    });
  }
}

}  // namespace fathom::sim
