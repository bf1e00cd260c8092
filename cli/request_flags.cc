#include "cli/request_flags.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/output.h"
#include "common/process.h"
#include "common/request_limits.h"

namespace fathom::client {

using nlohmann::ordered_json;

void RequestFlags::Add(Flags& flags) {
  flags.Group("Request");
  flags.Add("--max-tokens", &max_tokens, 0, 1 << 30, "Longest answer; 0: what the context allows");
  flags.Add("-n", &n, 1, kSequencesMax, "Answers to the same prompt");
  flags.Add("--temperature", &temperature, -1, 2,
            "0: the most likely token always; negative: the model's default");
  flags.Add("--seed", &seed, "Same request and same seed: same answer");
  flags.Add("--priority", &priority, -kPriorityMax, kPriorityMax,
            "Smaller is more urgent: admitted earlier, preempted later");
  flags.Add("--idempotency-key", &idempotency_key,
            "Repeating the command with the same key attaches to the same answer");
  flags.Group("Output");
  flags.Add("--json", &json, "Print the whole answer as one JSON object");
}

absl::Status RequestFlags::Apply(RequestOptions* request) const {
  if (max_tokens > 0) request->stop.max_tokens = max_tokens;
  if (temperature >= 0) request->sampling.temperature = static_cast<float>(temperature);
  if (n > 1) request->sampling.n = n;
  request->idempotency_key = idempotency_key;
  if (priority != 0) request->priority = priority;
  if (seed.empty()) return absl::OkStatus();
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(seed.data(), seed.data() + seed.size(), value);
  if (error != std::errc() || end != seed.data() + seed.size()) {
    return Invalid("--seed '{}' is not a number from 0 to 2^64 - 1", seed);
  }
  request->sampling.seed = value;
  return absl::OkStatus();
}

void RequestFlags::DrawId(RequestOptions* request) const {
  if (idempotency_key.empty()) request->request_id = RandomId();
}

AnswerPrinter::AnswerPrinter(bool quiet, int32_t sequences)
    : quiet_(quiet), terminal_(isatty(STDOUT_FILENO) == 1), kept_(static_cast<size_t>(sequences)) {}

bool AnswerPrinter::OnEvent(const Event& event) {
  if (quiet_) return true;
  if (const auto* started = std::get_if<Started>(&event)) {
    ShowId(started->request_id);
    if (!started->warning.empty()) Diagnose("warning: {}", started->warning);
  }
  if (const auto* tokens = std::get_if<Tokens>(&event)) {
    const auto sequence = static_cast<size_t>(tokens->sequence);
    if (sequence == streamed_) {
      Print(tokens->reasoning, tokens->text);
    } else {
      kept_[sequence].reasoning += tokens->reasoning;
      kept_[sequence].text += tokens->text;
    }
  }
  if (const auto* finish = std::get_if<client::Finish>(&event)) {
    kept_[static_cast<size_t>(finish->sequence)].ended = true;
    NextSequence();
  }
  return FlushAnswer();
}

void AnswerPrinter::Print(const std::string& reasoning, const std::string& text) {
  if (kept_.size() > 1 && !std::exchange(headed_, true)) PrintAnswer("[{}]\n", streamed_);
  if (!reasoning.empty() && terminal_) {
    Style(true);
    PrintAnswer("{}", reasoning);
    line_open_ = reasoning.back() != '\n';
  }
  if (!text.empty()) {
    Style(false);
    PrintAnswer("{}", text);
    line_open_ = text.back() != '\n';
  }
}

void AnswerPrinter::NextSequence() {
  while (streamed_ < kept_.size() && kept_[streamed_].ended) {
    if (kept_.size() == 1) return;
    Print({}, {});  // The line of one without text.
    EndLine();
    headed_ = false;
    if (++streamed_ == kept_.size()) return;
    const Kept kept = std::exchange(kept_[streamed_], {.ended = kept_[streamed_].ended});
    if (!kept.reasoning.empty() || !kept.text.empty()) Print(kept.reasoning, kept.text);
  }
}

void AnswerPrinter::Finish() {
  if (quiet_) return;
  EndLine();
  FlushAnswer();
}

void AnswerPrinter::EndLine() {
  Style(false);
  if (line_open_) PrintAnswer("\n");
  line_open_ = false;
}

void AnswerPrinter::ShowId(const std::string& request_id) {
  if (!request_id.empty() && !std::exchange(id_shown_, true)) Diagnose("request {}", request_id);
}

void AnswerPrinter::Style(bool dimmed) {
  if (dimmed == dimmed_ || !terminal_) return;
  PrintAnswer("{}{}", dimmed ? "\x1b[2m" : "\x1b[0m", line_open_ ? "\n" : "");
  dimmed_ = dimmed;
  line_open_ = false;
}

namespace {

// The kinds of group that made the tokens, each with its first position.
ordered_json KindsJson(const Finish& finish) {
  ordered_json kinds = ordered_json::array();
  for (const FingerprintSpan& span : finish.fingerprints) {
    kinds.push_back({{"position", span.position},
                     {"fingerprint", span.fingerprint},
                     {"model_digest", span.kind.model_digest},
                     {"dtype", span.kind.dtype},
                     {"device", span.kind.device_kind},
                     {"tensor_parallel_size", span.kind.tp},
                     {"recipe", span.kind.recipe}});
  }
  return kinds;
}

}  // namespace

void WarnOfKinds(const Answer& answer) {
  for (const auto& sequence : answer.sequences) {
    if (!sequence.finish || sequence.finish->fingerprints.size() < 2) continue;
    for (const FingerprintSpan& span : sequence.finish->fingerprints) {
      Diagnose("from token {}: {}", span.position, ToText(span.kind));
    }
    Diagnose(
        "the group was replaced by one of another kind; one kind alone might have given other "
        "tokens");
  }
}

std::string AnswerJson(const Answer& answer) {
  ordered_json sequences = ordered_json::array();
  for (const SequenceResult& sequence : answer.sequences) {
    ordered_json one = {{"text", sequence.text}, {"ids", sequence.ids}};
    if (!sequence.reasoning.empty()) one["reasoning"] = sequence.reasoning;
    if (sequence.finish) {
      const Finish& finish = *sequence.finish;
      one["kinds"] = KindsJson(finish);
      one["finish"] = FinishKindName(finish.kind);
      one["usage"] = {{"prompt_tokens", finish.usage.prompt_tokens},
                      {"completion_tokens", finish.usage.completion_tokens},
                      {"cached_tokens", finish.usage.cached_tokens}};
      one["timings"] = {{"queue_us", finish.timings.queue_us},
                        {"prefill_us", finish.timings.prefill_us},
                        {"decode_us", finish.timings.decode_us},
                        {"total_us", finish.timings.total_us},
                        {"suspensions", finish.timings.suspensions}};
    }
    sequences.push_back(std::move(one));
  }
  const ordered_json all = {{"request_id", answer.started.request_id},
                            {"model", answer.started.model},
                            {"seed", answer.started.seed},
                            {"fingerprint", answer.started.fingerprint},
                            {"attempts", answer.counts.attempts},
                            {"sequences", std::move(sequences)}};
  return all.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace fathom::client
