// router/frontend/http/openai_answer.h: writes the events of the sessions of one request as
// OpenAI's JSON: a whole answer, or the events of a stream (Server-Sent Events). Owner: one
// HttpAnswer, under its mutex. No IO.
//
// A choice is a sequence of a prompt: its index is prompt * n + sequence. An event of a stream has
// the line "id: REQUEST_ID:N,N,...", with the tokens of each choice that the client has after it
// (its end counts as one more): the header Last-Event-ID of a resume.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "router/frontend/http/answer_writer.h"
#include "router/frontend/http/json_writer.h"
#include "router/frontend/http/openai_request.h"
#include "router/sessions/client_events.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace fathom::router {

struct AnswerParts {
  AnswerOptions options;
  // The text before each prompt's choices. With `echo` an empty one is made of the prompt's ids.
  std::vector<std::string> echoes;
  // Which positions the client has of each choice; empty: none.
  std::vector<int32_t> positions;
  std::string request_id;  // Of several prompts; of one, Started tells it.
  const Tokenizer* tokenizer = nullptr;
  int64_t created_unix_s = 0;
};

// The texts of tokens for log-probabilities. `tokenizer` may be null.
class TokenTexts {
 public:
  TokenTexts(const Tokenizer* tokenizer, bool as_ids) : tokenizer_(tokenizer), as_ids_(as_ids) {}
  std::string Text(TokenId id) const;   // UTF-8; "token_id:5" if ids are asked for.
  std::string Key(TokenId id) const;    // Different for different bytes: "bytes:\xe2".
  std::string Bytes(TokenId id) const;  // Need not be UTF-8.

 private:
  const Tokenizer* const tokenizer_;
  const bool as_ids_;
};

// Counts the characters of a text token by token, for the offsets of log-probabilities.
class TextOffsets {
 public:
  // `tokenizer` may be null; then all offsets are 0.
  TextOffsets(const Tokenizer* tokenizer, bool skip_special) {
    if (tokenizer != nullptr) detokenizer_.emplace(tokenizer, skip_special, /*continues=*/true);
  }
  // The offset of the token, which is counted.
  int64_t Add(TokenId id);

 private:
  std::optional<Detokenizer> detokenizer_;
  int64_t characters_ = 0;
};

// OpenAI's forms of log-probabilities, of a chat and of a completion, as objects. In a completion
// `absent` is a token without a log-probability that stands before the others.
void WriteChatLogprobs(const std::vector<TokenLogprob>& logprobs, const TokenTexts& texts,
                       JsonWriter* json);
void WriteCompletionLogprobs(const std::optional<TokenId>& absent,
                             const std::vector<TokenLogprob>& logprobs, const TokenTexts& texts,
                             TextOffsets* offsets, JsonWriter* json);
// vLLM's form of the log-probabilities of a prompt: null, then a map by token id for each token.
void WritePromptLogprobs(const std::vector<TokenLogprob>& logprobs, const TokenTexts& texts,
                         JsonWriter* json);

class OpenAiAnswer final : public AnswerWriter {
 public:
  explicit OpenAiAnswer(AnswerParts parts);

  // The request's id, known after the first OnStarted.
  const std::string& request_id() const override { return request_id_; }

  // Each takes an event of a prompt's session. In a stream it returns the bytes to send, which may
  // be none; else it keeps what the whole answer needs and returns nothing.
  std::string OnStarted(int prompt, const StartedEvent& event,
                        std::vector<TokenId> prompt_ids) override;
  std::string OnPromptLogprobs(int prompt, PromptLogprobs event) override;
  std::string OnTokens(int prompt, TokensEvent event) override;
  std::string OnFinish(int prompt, FinishEvent event) override;

  // Every choice has its end.
  bool complete() const override;
  // The last events of a stream that succeeded. REQUIRES: called once.
  std::string StreamEnd() override;
  // The whole answer. REQUIRES: complete().
  std::string Whole() const override;

 private:
  struct Choice {
    int32_t position = 0;  // The tokens that the client has; the end counts as one more.
    int32_t tokens = 0;
    std::optional<TextOffsets> offsets;  // Of a stream of a completion.
    std::string text, reasoning;
    std::vector<ToolCallDelta> calls;  // Of a whole answer, one for each call.
    std::vector<TokenId> ids;
    std::vector<TokenLogprob> logprobs;
    std::optional<FinishEvent> finish;
  };
  struct PromptState {
    int32_t tokens = 0, cached = 0;
    std::vector<TokenId> ids;
    std::vector<TokenLogprob> logprobs;
    std::string echo;
    bool begun = false;  // The first chunks of a stream were given.
  };

  int IndexOf(int prompt, int32_t sequence) const;
  std::string Event(const std::string& json, bool after_end) const;
  // A chunk up to the choice's members, and from there to its end.
  JsonWriter BeginChunk(int index) const;
  // The first chunks of the prompt's choices in a stream, once.
  std::string TakeBegin(int prompt);
  std::string EndChunk(JsonWriter* json) const;
  void WriteUsage(JsonWriter* json) const;
  static void WriteDelta(const TokensEvent& event, JsonWriter* json);
  static void WriteMessage(const Choice& choice, JsonWriter* json);
  void WriteEnd(const FinishEvent& event, JsonWriter* json) const;
  void WriteChoice(int prompt, int index, JsonWriter* json) const;
  void WriteLogprobs(const PromptState& prompt, const Choice& choice, JsonWriter* json) const;

  const AnswerParts parts_;
  const AnswerOptions& options_;
  const TokenTexts texts_;
  std::string request_id_;
  std::string head_;  // The members of every chunk and of the answer up to "choices".
  std::vector<PromptState> prompts_;
  std::vector<Choice> choices_;
};

}  // namespace fathom::router
