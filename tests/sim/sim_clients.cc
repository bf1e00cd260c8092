// Clients: their requests, what they record, and how they leave and come back.
#include <algorithm>
#include <utility>

#include "tests/sim/model.h"
#include "tests/sim/sim_world.h"
#include "tests/sim/timings_check.h"

namespace fathom::sim {

void World::Arrive() {
  if (specs_.size() == static_cast<size_t>(options_.requests)) return;
  const size_t index = specs_.size();
  specs_.push_back(MakeSpec(index));
  // Each kind of fault occurs at least once, for every seed.
  const auto half = static_cast<size_t>(options_.requests / 2);
  if (index == half / 2) LoseGroup(0);
  if (index == half / 2 + 1) LoseRouter(0);
  if (index == half) TakeOver();
  AddListener(index);
  if (Chance(options_.second_listener_permille)) {
    After(static_cast<TimeUs>(Draw(100'000)), [this, index] { AddListener(index); });
  }
  After(1 + static_cast<TimeUs>(Draw(static_cast<uint64_t>(options_.arrival_us_max))),
        [this] { Arrive(); });
}

World::Spec World::MakeSpec(size_t index) {
  Spec spec;
  Record& record = spec.record;
  record.key = {Chance(500) ? "" : "tenant", fmt::format("request-{}", index)};
  record.seed = rng_();
  Request& request = record.request;
  request.stop.max_tokens = 1 + static_cast<int32_t>(Draw(30));
  if (Chance(700)) request.stop.end_token_ids = {kEndToken};
  if (Chance(200)) request.stop.stop_token_ids = {kStopToken};
  if (Chance(200)) request.output.logprobs = 0;
  if (Chance(100)) request.output.prompt_logprobs = 0;
  spec.too_long = Chance(5);
  const uint64_t prompt = spec.too_long ? 200 : 1 + Draw(40);
  // Some prompts begin alike, and some continue an earlier answer, as the next turn of a chat does.
  if (Chance(500)) {
    const uint64_t text = Draw(4);
    const uint64_t shared = std::min<uint64_t>(prompt, Draw(40));
    for (uint64_t i = 0; i < shared; ++i)
      record.prompt_ids.push_back(static_cast<TokenId>(Mix(text, i) % kVocab));
  } else if (Chance(500) && !listeners_.empty()) {
    const Record& earlier = listeners_[Draw(listeners_.size())].record;
    record.prompt_ids = earlier.prompt_ids;
    const std::vector<TokenId>& ids = earlier.sequences[0].ids;
    record.prompt_ids.insert(record.prompt_ids.end(), ids.begin(), ids.end());
    record.prompt_ids.resize(std::min<size_t>(record.prompt_ids.size(), prompt));
  }
  if (Chance(100)) record.cache.salt = "salt";
  if (Chance(50)) record.cache.skip = true;
  while (record.prompt_ids.size() < prompt)
    record.prompt_ids.push_back(static_cast<TokenId>(Draw(kVocab)));
  if (Chance(options_.close_permille)) spec.close_at = 1 + static_cast<int32_t>(Draw(20));
  if (options_.several_permille > 0 && Chance(options_.several_permille)) {
    request.sequences = 2 + static_cast<int32_t>(Draw(4));
    spec.close_sequence = static_cast<int32_t>(Draw(static_cast<uint64_t>(request.sequences)));
  }
  if (Chance(options_.deadline_permille))
    spec.deadline_us = 1 + static_cast<int64_t>(Draw(500'000));
  return spec;
}

void World::AddListener(size_t spec) {
  Listener listener;
  listener.spec = spec;
  listener.record = specs_[spec].record;
  const auto sequences = static_cast<size_t>(listener.record.request.sequences);
  listener.record.sequences.resize(sequences);
  uint64_t prefix = 0;
  for (TokenId id : listener.record.prompt_ids) prefix = PrefixWith(prefix, id);
  listener.flows.assign(sequences, {.prefix = prefix});
  if (Chance(options_.abandon_permille)) listener.abandoned = true;
  if (listener.abandoned || Chance(options_.hang_up_permille)) listener.hang_up_at = Draw(20);
  if (specs_[spec].deadline_us > 0) listener.deadline_at_us = now_ + specs_[spec].deadline_us;
  listeners_.push_back(std::move(listener));
  ++report_.listeners;
  ++open_;
  Submit(listeners_.size() - 1, false);
}

void World::Submit(size_t index, bool key_only) {
  Listener& listener = listeners_[index];
  listener.router = routers_[Draw(routers_.size())];
  listener.attempt = AttemptId{next_attempt_++};
  listener.attached = true;
  attempts_[listener.attempt] = index;
  fathom::Submit submit{.attempt = listener.attempt,
                        .key = listener.record.key,
                        .record = std::nullopt,
                        .router_blob = "blob"};
  if (!key_only) {
    submit.record = listener.record;
  } else {
    listener.record.prompt_logprobs.clear();  // A router that knows nothing; Accepted brings them.
  }
  for (const SequenceRecord& sequence : listener.record.sequences) {
    submit.have.push_back(static_cast<int32_t>(sequence.ids.size()));
  }
  for (Flow& flow : listener.flows) flow.end_again = false;
  submit.replay = listener.accepted && !key_only;
  if (listener.deadline_at_us > 0) {
    submit.deadline_us = std::max<int64_t>(1, listener.deadline_at_us - now_);
  }
  Send(static_cast<uint64_t>(listener.router.value) * 2 + 1,
       [this, term = term_, router = listener.router, submit = std::move(submit)]() mutable {
         if (term == term_) Feed(scheduler::Routed<fathom::Submit>{router, std::move(submit)});
       });
  if (listener.hang_up_at == 0u) {
    listener.hang_up_at.reset();
    After(static_cast<TimeUs>(Draw(50'000)), [this, index, attempt = listener.attempt] {
      if (listeners_[index].attempt == attempt) HangUp(index);
    });
  }
}

void World::Reattach(size_t index, TimeUs delay_us) {
  ++report_.resumes;
  After(delay_us, [this, index] {
    const Listener& listener = listeners_[index];
    if (!listener.attached && !listener.over) Submit(index, listener.accepted && Chance(500));
  });
}

void World::HangUp(size_t index) {
  Listener& listener = listeners_[index];
  if (!listener.attached) return;
  listener.attached = false;
  Send(static_cast<uint64_t>(listener.router.value) * 2 + 1,
       [this, term = term_, router = listener.router, attempt = listener.attempt,
        key = listener.record.key] {
         if (term == term_) Feed(scheduler::Routed<Suspend>{router, {attempt, key}});
       });
  if (listener.abandoned) {
    listener.over = true;
    ++report_.abandoned;
    --open_;
  } else {
    Reattach(index, static_cast<TimeUs>(Draw(Chance(100) ? 25'000'000 : 1'000'000)));
  }
}

World::Listener* World::Attached(PeerId router, AttemptId attempt) {
  auto it = attempts_.find(attempt);
  if (it == attempts_.end()) return nullptr;
  Listener& listener = listeners_[it->second];
  const bool current =
      listener.attached && listener.router == router && listener.attempt == attempt;
  return current ? &listener : nullptr;
}

void World::OnRefused(const scheduler::Routed<Refused>& out) {
  const auto& [router, refused] = out;
  Listener* listener = Attached(router, refused.attempt);
  if (listener == nullptr) return;
  listener->attached = false;
  const size_t index = attempts_.at(refused.attempt);
  const std::string reason = DetailOf(refused.status)->reason;
  if (reason == "SESSION_NOT_FOUND") {
    After(1000, [this, index] {
      if (!listeners_[index].attached && !listeners_[index].over) Submit(index, false);
    });
  } else if (refused.status.code() == absl::StatusCode::kResourceExhausted) {
    Reattach(index, options_.retry_us +
                        static_cast<TimeUs>(Draw(2 * static_cast<uint64_t>(options_.retry_us))));
  } else {
    const bool too_long =
        (specs_[listener->spec].too_long && reason == "CONTEXT_LENGTH_EXCEEDED") ||
        (specs_[listener->spec].deadline_us > 0 && reason == "DEADLINE_UNREACHABLE");
    // Two clients continued with tokens of different kinds of groups; both cannot be right.
    const bool mismatch = report_.fingerprints_changed > 0 &&
                          (reason == "RECORD_MISMATCH" || reason == "FINGERPRINT_MISMATCH");
    if (!too_long && !mismatch) Fail("refused: " + ToString(refused.status));
    ++(too_long ? report_.refused : report_.mismatched);
    listener->over = true;
    --open_;
  }
}

void World::OnFrame(const scheduler::Routed<Frame>& out) {
  const Frame& frame = out.message;
  Listener* listener = Attached(out.router, frame.attempt);
  if (listener == nullptr) return;
  const std::string& id = listener->record.key.request_id;
  if (!listener->accepted) Fail(id + ": a frame before Accepted");
  Flow& flow = listener->flows.at(static_cast<size_t>(frame.sequence));
  if (!frame.fingerprint.empty()) {
    flow.fingerprint = frame.fingerprint;
    flow.kind = frame.kind;
  }
  if (frame.prompt_logprobs) {
    const auto& [start, logprobs] = *frame.prompt_logprobs;
    const auto& prompt = listener->record.prompt_ids;
    auto& held = listener->record.prompt_logprobs;
    if (start > std::ssize(held) + 1) Fail(id + ": prompt log-probabilities with a gap");
    uint64_t prefix = 0;
    for (int32_t i = 0; i < start; ++i) prefix = PrefixWith(prefix, prompt[static_cast<size_t>(i)]);
    for (size_t i = 0; i < logprobs.size(); ++i) {
      const TokenId token = prompt[static_cast<size_t>(start) + i];
      if (logprobs[i] != LogprobAt(prefix, token)) Fail(id + ": a wrong prompt log-probability");
      prefix = PrefixWith(prefix, token);
      if (static_cast<size_t>(start) + i > held.size()) held.push_back(logprobs[i]);
    }
  }
  // What comes after an end is of a leader that does not know the end.
  if (!flow.ended) TakeTokens(*listener, frame);
  if (frame.timings.has_value() != (frame.finish || !frame.error.ok())) {
    Fail(id + ": timings without an end, or an end without timings");
  } else if (frame.timings) {
    if (const std::string wrong = WrongTimings(*frame.timings); !wrong.empty()) {
      Fail(id + ": timings: " + wrong);
    }
  }
  if (frame.finish || !frame.error.ok()) return TakeEnd(*listener, frame);
  const Spec& spec = specs_[listener->spec];
  const auto length = static_cast<int32_t>(
      listener->record.sequences[static_cast<size_t>(frame.sequence)].ids.size());
  const bool closes = spec.close_at && frame.sequence == spec.close_sequence;
  if (closes && length >= *spec.close_at && !listener->close_sent) {
    listener->close_sent = true;
    Send(static_cast<uint64_t>(out.router.value) * 2 + 1, [this, term = term_, router = out.router,
                                                           key = listener->record.key,
                                                           sequence = frame.sequence,
                                                           length_at = *spec.close_at] {
      if (term != term_) return;
      Feed(scheduler::Routed<Close>{router, {key, sequence, length_at, FinishReason::kStopString}});
    });
  }
  if (listener->hang_up_at && static_cast<size_t>(length) >= *listener->hang_up_at) {
    listener->hang_up_at.reset();
    HangUp(attempts_.at(frame.attempt));
  }
}

void World::TakeTokens(Listener& listener, const Frame& frame) {
  SequenceRecord& record = listener.record.sequences[static_cast<size_t>(frame.sequence)];
  Flow& flow = listener.flows[static_cast<size_t>(frame.sequence)];
  const std::string& id = listener.record.key.request_id;
  for (size_t i = 0; i < frame.ids.size(); ++i) {
    const size_t position = static_cast<size_t>(frame.position) + i;
    if (position > record.ids.size()) return Fail(fmt::format("{}: a gap at {}", id, position));
    if (position < record.ids.size()) return Fail(fmt::format("{}: token {} twice", id, position));
    const auto at = static_cast<int32_t>(position);
    const TokenId expected =
        TokenAt(listener.record.seed, at, flow.prefix, flow.fingerprint, frame.sequence);
    if (frame.ids[i] != expected) {
      return Fail(fmt::format("{}: token {} is {}, not {} ({})", id, position, frame.ids[i],
                              expected, flow.fingerprint));
    }
    auto& spans = record.fingerprints;
    if (spans.empty() || spans.back().fingerprint != flow.fingerprint) {
      spans.push_back({at, flow.fingerprint, flow.kind});
    }
    if (listener.record.request.output.logprobs) {
      if (frame.logprobs.size() != frame.ids.size() ||
          frame.logprobs[i] != LogprobAt(flow.prefix, expected)) {
        return Fail(fmt::format("{}: a wrong log-probability at {}", id, position));
      }
      record.logprobs.push_back(frame.logprobs[i]);
    }
    flow.prefix = PrefixWith(flow.prefix, expected);
    record.ids.push_back(expected);
  }
}

void World::TakeEnd(Listener& listener, const Frame& frame) {
  const Spec& spec = specs_[listener.spec];
  const Request& request = spec.record.request;
  Flow& flow = listener.flows[static_cast<size_t>(frame.sequence)];
  const std::string& id = listener.record.key.request_id;
  if (std::exchange(flow.end_again, true)) Fail(id + ": ended twice");
  if (flow.ended) return;  // It was told before, perhaps with another reason by another leader.
  SequenceRecord& record = listener.record.sequences[static_cast<size_t>(frame.sequence)];
  std::vector<TokenId>& ids = record.ids;
  const auto length = static_cast<int32_t>(ids.size());
  const FinishReason reason = frame.finish ? frame.finish->reason : FinishReason::kError;
  const TokenId last = ids.empty() ? -1 : ids.back();
  const bool ends = last == kEndToken && !request.stop.end_token_ids.empty();
  const bool stops = last == kStopToken && !request.stop.stop_token_ids.empty();
  bool right = false;
  switch (reason) {
    case FinishReason::kEndToken:
      right = ends;
      break;
    case FinishReason::kStopToken:
      right = stops && !ends;
      break;
    case FinishReason::kLength:
      right = length == request.stop.max_tokens && !ends && !stops;
      break;
    case FinishReason::kStopString:  // Another listener may have cut tokens that this one already
                                     // has.
      right = spec.close_at && frame.sequence == spec.close_sequence && length >= *spec.close_at &&
              frame.finish->usage.completion_tokens == *spec.close_at;
      break;
    case FinishReason::kDeadline:
      right = spec.deadline_us > 0;
      break;
    case FinishReason::kError:  // A new leader learns the limits of its groups late.
      right =
          DetailOf(frame.error).has_value() &&
          (length == FaultAt(spec.record.seed) ||
           DetailOf(frame.error)->reason == "FAILED_BEFORE" ||
           // A client had more of the answer than the new leader, of another kind of group.
           (options_.other_kind_permille > 0 && DetailOf(frame.error)->reason == "MODEL_CHANGED") ||
           (spec.too_long && DetailOf(frame.error)->reason == "CONTEXT_LENGTH_EXCEEDED"));
      break;
    case FinishReason::kNone:
      break;
  }
  if (!right) {
    Fail(fmt::format("{}: ends by {} after {} tokens ({})", id, FinishReasonName(reason), length,
                     ToString(frame.error)));
  }
  const bool whole = frame.finish && frame.finish->reason != FinishReason::kDeadline;
  if (request.output.prompt_logprobs && whole &&
      listener.record.prompt_logprobs.size() != spec.record.prompt_ids.size() - 1) {
    Fail(
        fmt::format("{}: {} prompt log-probabilities", id, listener.record.prompt_logprobs.size()));
  }
  ++report_.by_reason[static_cast<size_t>(reason)];
  flow.ended = true;
  record.finish = reason;
  if (reason == FinishReason::kStopString) {
    ids.resize(static_cast<size_t>(*spec.close_at));
    if (!record.logprobs.empty()) record.logprobs.resize(ids.size());
  }
  // The failure of one sequence ends the whole request.
  if (reason != FinishReason::kError && !std::ranges::all_of(listener.flows, &Flow::ended)) return;
  listener.attached = false;
  listener.over = true;
  ++report_.ended;
  --open_;
}

}  // namespace fathom::sim
