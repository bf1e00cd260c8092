#include "cli/verify/golden.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

namespace fathom::client {
namespace {

using nlohmann::ordered_json;

bool HasWideNumber(const ordered_json& value) {
  if (value.is_number_float()) return std::abs(value.get<double>()) >= 0x1p63;
  return value.is_structured() && std::any_of(value.begin(), value.end(), HasWideNumber);
}

// The text that a request carries for a JSON value of `field`: a string is that text already.
absl::StatusOr<std::string> JsonText(const char* field, const ordered_json& from) {
  if (from.is_string()) return from.get<std::string>();
  if (HasWideNumber(from)) {
    return Invalid(
        "{}: a number beyond 64 bits would lose digits here; write {} as a string of JSON", field,
        field);
  }
  return from.dump();
}

absl::StatusOr<ChatMessage> ParseMessage(const ordered_json& from) {
  if (!from.is_object() || !from.contains("role")) return Invalid("messages: one has no role");
  ChatMessage to;
  to.role = from.at("role").get<std::string>();
  if (from.contains("content") && !from["content"].is_null()) {
    to.content = from["content"].get<std::string>();
  }
  if (from.contains("reasoning_content")) to.reasoning = from["reasoning_content"];
  to.tool_call_id = from.value("tool_call_id", "");
  to.name = from.value("name", "");
  for (const ordered_json& call : from.value("tool_calls", ordered_json::array())) {
    const ordered_json& function = call.at("function");
    FATHOM_ASSIGN_OR_RETURN(std::string arguments, JsonText("arguments", function.at("arguments")));
    to.tool_calls.push_back({.id = call.value("id", ""),
                             .name = function.at("name"),
                             .arguments_json = std::move(arguments)});
  }
  return to;
}

absl::Status ParseQuestion(const ordered_json& from, Golden* to) {
  if (from.contains("messages")) {
    to->conversation.emplace();
    for (const ordered_json& message : from["messages"]) {
      FATHOM_ASSIGN_OR_RETURN(ChatMessage parsed, ParseMessage(message));
      to->conversation->messages.push_back(std::move(parsed));
    }
    if (from.contains("tools")) {
      FATHOM_ASSIGN_OR_RETURN(to->conversation->tools_json, JsonText("tools", from["tools"]));
    }
    if (from.contains("enable_thinking")) {
      to->conversation->enable_thinking = from["enable_thinking"].get<bool>();
    }
  } else if (from.contains("prompt")) {
    to->prompt = from["prompt"].get<std::string>();
  }
  to->fixture = !from.contains("rendered");
  if (!to->fixture && !from["rendered"].is_null()) to->rendered = from["rendered"];
  return absl::OkStatus();
}

// Empty if a position has fewer than two tokens.
std::vector<double> GapsOf(const std::vector<TopTokens>& top) {
  std::vector<double> gaps;
  for (const TopTokens& one : top) {
    if (one.logprobs.size() < 2) return {};
    gaps.push_back(one.logprobs[0] - one.logprobs[1]);
  }
  return gaps;
}

absl::Status ParseAnswer(const ordered_json& from, Golden* to) {
  to->prompt_ids = from.at("prompt_ids").get<std::vector<TokenId>>();
  to->output_ids = from.at("output_ids").get<std::vector<TokenId>>();
  if (to->prompt_ids.empty() || to->output_ids.empty()) {
    return Invalid("prompt_ids and output_ids must not be empty");
  }
  if (from.contains("text") && !from["text"].is_null()) to->text = from["text"];
  to->logprobs = from.value("logprobs", std::vector<double>());
  for (const ordered_json& top : from.value("top5", ordered_json::array())) {
    to->top.push_back(
        {top.at(0).get<std::vector<TokenId>>(), top.at(1).get<std::vector<double>>()});
    if (to->top.back().ids.size() != to->top.back().logprobs.size()) {
      return Invalid("top5: unequal numbers of ids and log-probabilities");
    }
  }
  to->gaps = from.value("margins", GapsOf(to->top));
  for (const ordered_json& one : from.value("prompt_logprobs", ordered_json::array())) {
    to->prompt_logprobs.push_back(one.is_null() ? 0.0 : one.get<double>());
  }
  const auto fits = [](size_t have, size_t want) { return have == 0 || have == want; };
  if (!fits(to->logprobs.size(), to->output_ids.size()) ||
      !fits(to->top.size(), to->output_ids.size()) ||
      !fits(to->gaps.size(), to->output_ids.size())) {
    return Invalid("logprobs, top5 and margins must have one entry for each of the {} output_ids",
                   to->output_ids.size());
  }
  if (!fits(to->prompt_logprobs.size(), to->prompt_ids.size())) {
    return Invalid("prompt_logprobs has {} entries for {} prompt_ids", to->prompt_logprobs.size(),
                   to->prompt_ids.size());
  }
  return absl::OkStatus();
}

absl::StatusOr<Golden> ParseGolden(std::string_view line, int32_t number) {
  try {
    const ordered_json from = ordered_json::parse(line);
    Golden golden;
    golden.line = number;
    golden.name = from.value("name", fmt::format("line {}", number));
    FATHOM_RETURN_IF_ERROR(ParseQuestion(from, &golden));
    FATHOM_RETURN_IF_ERROR(ParseAnswer(from, &golden));
    return golden;
  } catch (const ordered_json::exception& error) {
    return Invalid("{}", error.what());
  }
}

}  // namespace

absl::StatusOr<std::vector<Golden>> ParseGoldens(std::string_view jsonl,
                                                 const std::string& origin) {
  std::vector<Golden> goldens;
  int32_t number = 0;
  for (size_t start = 0; start < jsonl.size();) {
    const size_t end = std::min(jsonl.find('\n', start), jsonl.size());
    const std::string_view line = jsonl.substr(start, end - start);
    start = end + 1;
    number += 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    auto golden = ParseGolden(line, number);
    if (!golden.ok()) return Annotate(golden.status(), fmt::format("{}:{}", origin, number));
    goldens.push_back(*std::move(golden));
  }
  if (goldens.empty()) return Invalid("{} holds no recorded answers", origin);
  return goldens;
}

}  // namespace fathom::client
