// tests/text/answer_support.h: helpers for the tests and the fuzz target of the answer machine:
// tokenizers that have the markers of a form as tokens or as text, the tokens of a text cut at any
// byte, and what must hold for every answer.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/check.h"
#include "common/utf8.h"
#include "text/answer_machine.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace fathom {

inline const std::vector<std::string>& AllMarkers() {
  static const std::vector<std::string> kMarkers = {"<think>",
                                                    "</think>",
                                                    "<｜tool▁calls▁begin｜>",
                                                    "<｜tool▁calls▁end｜>",
                                                    "<｜tool▁call▁begin｜>",
                                                    "<｜tool▁call▁end｜>",
                                                    "<｜tool▁sep｜>",
                                                    "<tool_call>",
                                                    "</tool_call>",
                                                    "<|python_tag|>"};
  return kMarkers;
}

// The bundled model's tokenizer with all markers as tokens that are not special, or with none.
inline std::unique_ptr<Tokenizer> MarkerTokenizer(bool tokens) {
  namespace fs = std::filesystem;
  const fs::path model = fs::path(FATHOM_SOURCE_DIR) / "models/fathom-tiny";
  nlohmann::json json;
  std::ifstream(model / "tokenizer.json") >> json;
  auto& added = json["added_tokens"];
  int id = 4096;
  for (auto& token : added) {
    const std::string content = token["content"];
    if (std::ranges::find(AllMarkers(), content) == AllMarkers().end()) continue;
    token["special"] = false;
    if (tokens) continue;
    token["content"] = "<|unused" + content.substr(1);
    auto& vocabulary = json["model"]["vocab"];
    if (vocabulary.erase(content) > 0)
      vocabulary[token["content"].get<std::string>()] = token["id"];
  }
  for (const std::string& marker : AllMarkers()) {
    const bool there = std::ranges::any_of(
        added, [&](const nlohmann::json& token) { return token["content"] == marker; });
    if (!tokens || there) continue;
    added.push_back({{"id", id++},
                     {"content", marker},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", false}});
  }
  const fs::path folder =
      fs::temp_directory_path() / ("fathom-markers-" + std::to_string(getpid()));
  fs::create_directories(folder);
  std::ofstream(folder / "tokenizer.json") << json.dump();
  auto loaded = Tokenizer::Load(folder.string());
  fs::remove_all(folder);
  FATHOM_CHECK(loaded.ok(), "{}", ToString(loaded.status()));
  return *std::move(loaded);
}

// Appends the tokens of single bytes. REQUIRES: one thread; the tokenizer lives to the end.
inline void AppendByteTokens(const Tokenizer& tokenizer, std::string_view text,
                             std::vector<TokenId>* ids) {
  static std::map<const Tokenizer*, std::array<TokenId, 256>> known;
  const auto [it, added] = known.try_emplace(&tokenizer);
  std::array<TokenId, 256>& tokens = it->second;
  if (added) tokens.fill(-1);
  for (TokenId id = tokenizer.vocab_size() - 1; added && id >= 0; --id) {
    const std::string_view bytes = tokenizer.TokenBytes(id);
    if (bytes.size() == 1) tokens[static_cast<uint8_t>(bytes.front())] = id;
  }
  for (const char c : text) {
    const TokenId id = tokens[static_cast<uint8_t>(c)];
    FATHOM_CHECK(id >= 0, "no token of byte {}", static_cast<int>(static_cast<uint8_t>(c)));
    ids->push_back(id);
  }
}

// The text as tokens, and cut before the byte `cut` of it: no token but a marker has bytes on both
// sides. npos: every byte is a token, apart from markers. REQUIRES: UTF-8.
inline std::vector<TokenId> TokensCutAt(const Tokenizer& tokenizer, std::string_view text,
                                        size_t cut) {
  std::vector<TokenId> ids;
  const auto append = [&](std::string_view part) {
    const auto encoded = tokenizer.Encode(part, {.parse_special = false});
    FATHOM_CHECK(encoded.ok());
    ids.insert(ids.end(), encoded->begin(), encoded->end());
  };
  size_t begin = 0;
  const auto give = [&](size_t end) {
    if (cut == std::string_view::npos) {
      AppendByteTokens(tokenizer, text.substr(begin, end - begin), &ids);
    } else if (cut <= begin || cut >= end) {
      append(text.substr(begin, end - begin));
    } else {
      size_t first = cut;  // The character that the cut divides.
      while (first > begin && (static_cast<uint8_t>(text[first]) & 0xC0) == 0x80) --first;
      const size_t next = first == cut ? cut : NextCharacter(text, first);
      append(text.substr(begin, first - begin));
      AppendByteTokens(tokenizer, text.substr(first, next - first), &ids);
      append(text.substr(next, end - next));
    }
    begin = end;
  };
  for (size_t at = 0; at < text.size();) {
    const AddedToken* found = nullptr;
    for (const AddedToken& token : tokenizer.added_tokens()) {
      if (!text.substr(at).starts_with(token.content)) continue;
      if (found == nullptr || token.content.size() > found->content.size()) found = &token;
    }
    if (found == nullptr) {
      at = NextCharacter(text, at);
      continue;
    }
    give(at);
    ids.push_back(found->id);
    begin = at += found->content.size();
  }
  give(text.size());
  return ids;
}

// All events, with neighbours of one kind put together.
inline std::vector<AnswerEvent> AllEvents(const Tokenizer& tokenizer,
                                          const AnswerMachineOptions& options,
                                          std::span<const TokenId> ids) {
  AnswerMachine machine(&tokenizer, options);
  std::vector<AnswerEvent> all;
  const auto take = [&](const std::vector<AnswerEvent>& events) {
    for (const AnswerEvent& event : events) {
      FATHOM_CHECK(FirstInvalidUtf8(event.text) == std::string::npos);
      const bool more = !all.empty() && all.back().kind == event.kind &&
                        all.back().call == event.call && event.kind != AnswerEvent::Kind::kCallEnd;
      if (more) {
        all.back().text += event.text;
      } else {
        all.push_back(event);
      }
    }
  };
  for (const TokenId id : ids) {
    std::vector<AnswerEvent> events;
    machine.Append(id, &events);
    take(events);
  }
  std::vector<AnswerEvent> events;
  machine.Finish(&events);
  take(events);
  return all;
}

// "think(...) text(...) name({...})!": "!" after whole arguments, "?" after others.
inline std::string ToText(const std::vector<AnswerEvent>& events) {
  std::string text;
  for (const AnswerEvent& event : events) {
    switch (event.kind) {
      case AnswerEvent::Kind::kReasoning:
        text += "think(" + event.text + ") ";
        break;
      case AnswerEvent::Kind::kContent:
        text += "text(" + event.text + ") ";
        break;
      case AnswerEvent::Kind::kCallBegin:
        text += event.text + "#" + std::to_string(event.call) + "(";
        break;
      case AnswerEvent::Kind::kCallArguments:
        text += event.text;
        break;
      case AnswerEvent::Kind::kCallEnd:
        text += event.whole ? ")! " : ")? ";
        break;
    }
  }
  return text;
}

// What is wrong with the events of an answer; empty: nothing. `plain`: the answer's events if no
// calls are looked for.
inline std::string Wrong(const std::vector<AnswerEvent>& events,
                         const std::vector<AnswerEvent>& plain,
                         const AnswerMachineOptions& options) {
  const auto all_of = [](const std::vector<AnswerEvent>& from, AnswerEvent::Kind kind) {
    std::string text;
    for (const AnswerEvent& event : from) {
      if (event.kind == kind) text += event.text;
    }
    return text;
  };
  const std::string whole = all_of(plain, AnswerEvent::Kind::kContent);
  if (all_of(events, AnswerEvent::Kind::kReasoning) !=
      all_of(plain, AnswerEvent::Kind::kReasoning)) {
    return "the reasoning is another";
  }
  bool content = false, open = false;
  int32_t calls = 0;
  size_t at = 0;  // In the whole content: what the events have is there, in order.
  for (const AnswerEvent& event : events) {
    if (event.kind == AnswerEvent::Kind::kReasoning) {
      if (content) return "reasoning after content";
      continue;
    }
    content = true;
    // Arguments may stand before the name.
    if (event.kind != AnswerEvent::Kind::kCallBegin) {
      for (const char c : event.text) {
        at = whole.find(c, at);
        if (at == std::string::npos) return "'" + event.text + "' is not in the answer, or before";
        ++at;
      }
    }
    switch (event.kind) {
      case AnswerEvent::Kind::kCallBegin:
        if (open || event.call != calls) return "a call begins in a call";
        if (std::ranges::find(options.tool_names, event.text) == options.tool_names.end()) {
          return "a call of an unknown tool";
        }
        open = true;
        break;
      case AnswerEvent::Kind::kCallArguments:
        if (!open || event.call != calls) return "arguments of no call";
        break;
      case AnswerEvent::Kind::kCallEnd:
        if (!open || event.call != calls) return "an end of no call";
        open = false;
        ++calls;
        break;
      default:
        if (open || event.call != -1) return "content in a call";
    }
  }
  if (open) return "a call without an end";
  if (calls > options.calls_max) return "too many calls";
  if (calls == 0 && options.calls_max > 0 && all_of(events, AnswerEvent::Kind::kContent) != whole) {
    return "no call, but the content is another";
  }
  // Arguments that are whole are JSON.
  for (size_t i = 1; i < events.size(); ++i) {
    if (events[i].kind != AnswerEvent::Kind::kCallEnd || !events[i].whole) continue;
    const std::string& text = events[i - 1].text;
    // That library refuses numbers beyond a double's, and halves of surrogate pairs.
    bool refused = text.find("\\ud") != std::string::npos || text.find("\\uD") != std::string::npos;
    for (size_t c = 1; c < text.size(); ++c) {
      refused = refused ||
                ((text[c] == 'e' || text[c] == 'E') && text[c - 1] >= '0' && text[c - 1] <= '9');
    }
    if (!refused && !nlohmann::json::accept(text)) return "whole arguments are no JSON";
  }
  return {};
}

}  // namespace fathom
