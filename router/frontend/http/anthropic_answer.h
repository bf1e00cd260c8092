// router/frontend/http/anthropic_answer.h: writes an answer in the form of Anthropic's
// /v1/messages: a message object, or its stream of events, message_start to message_stop. Owner:
// one HttpAnswer, under its mutex. No IO.
//
// Each item of the answer (answer_items.h) is a content block: thinking, text or tool_use.
#pragma once

#include <string>
#include <vector>

#include "router/frontend/http/answer_items.h"
#include "router/frontend/http/answer_writer.h"
#include "router/frontend/http/json_writer.h"
#include "router/frontend/http/openai_answer.h"

namespace fathom::router {

class AnthropicAnswer final : public AnswerWriter {
 public:
  // `stops`: the stop sequences of the request.
  AnthropicAnswer(AnswerParts parts, std::vector<std::string> stops);

  const std::string& request_id() const override { return request_id_; }
  std::string OnStarted(int prompt, const StartedEvent& event,
                        std::vector<TokenId> prompt_ids) override;
  std::string OnTokens(int prompt, TokensEvent event) override;
  std::string OnFinish(int prompt, FinishEvent event) override;
  // An event that clients know; a comment would be one more form to read.
  std::string Heartbeat() const override;
  bool complete() const override { return finish_.has_value(); }
  std::string StreamEnd() override;
  std::string StreamError(const absl::Status& status, const FieldNames& names) override;
  std::string Whole() const override;

 private:
  std::string Events(const std::vector<ItemStep>& steps) const;
  std::string OpenEvent(size_t index) const;
  std::string DeltaEvent(size_t index, const std::string& text) const;
  std::string CloseEvents(size_t index) const;
  void WriteBlock(const AnswerItem& item, JsonWriter* json) const;
  void WriteHead(JsonWriter* json) const;
  void WriteUsage(JsonWriter* json) const;
  // `stop_reason` and `stop_sequence`.
  void WriteStop(JsonWriter* json) const;
  std::string StopSequence() const;  // Empty: the answer did not end at one.

  const AnswerOptions options_;
  const TokenTexts texts_;
  const std::vector<std::string> stops_;
  std::string request_id_;
  std::string model_;
  int32_t prompt_tokens_ = 0, cached_tokens_ = 0, tokens_ = 0;
  AnswerItems items_;
  std::optional<FinishEvent> finish_;
};

}  // namespace fathom::router
