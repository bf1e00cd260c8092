// router/frontend/http/responses_answer.h: writes an answer in the form of OpenAI's /v1/responses:
// a response object, or its stream of events with `sequence_number`s. Owner: one HttpAnswer, under
// its mutex. No IO.
//
// Each item of the answer (answer_items.h) is an output item: reasoning, a message or a function
// call. The last event of a stream has the whole response, which is also the whole answer without
// a stream.
#pragma once

#include <string>
#include <vector>

#include "router/frontend/http/answer_items.h"
#include "router/frontend/http/answer_writer.h"
#include "router/frontend/http/json_writer.h"
#include "router/frontend/http/openai_answer.h"

namespace fathom::router {

class ResponsesAnswer final : public AnswerWriter {
 public:
  // `echo`: the begin of a JSON object with what the response repeats of its request, without the
  // closing bracket.
  ResponsesAnswer(AnswerParts parts, std::string echo);

  const std::string& request_id() const override { return request_id_; }
  std::string OnStarted(int prompt, const StartedEvent& event,
                        std::vector<TokenId> prompt_ids) override;
  std::string OnTokens(int prompt, TokensEvent event) override;
  std::string OnFinish(int prompt, FinishEvent event) override;
  bool complete() const override { return finish_.has_value(); }
  std::string StreamEnd() override;
  std::string StreamError(const absl::Status& status, const FieldNames& names) override;
  std::string Whole() const override;

 private:
  // What an item is in an event: all of it, or as it was when it began.
  enum class View { kBegun, kNow };

  std::string Events(const std::vector<ItemStep>& steps);
  std::string OpenEvents(size_t index);
  std::string DeltaEvent(size_t index, const std::string& text);
  std::string CloseEvents(size_t index);
  // An event up to its members, and from there to its end.
  JsonWriter Begin(std::string_view type);
  static std::string End(std::string_view type, JsonWriter* json);
  // The same with the members that name an item, and its part.
  JsonWriter BeginOf(std::string_view type, size_t index);
  std::string ResponseEvent(std::string_view type, std::string_view status,
                            const ErrorParts* error = nullptr);

  std::string IdOf(size_t index) const;
  void WritePart(const AnswerItem& item, View view, JsonWriter* json) const;
  void WriteItem(size_t index, View view, JsonWriter* json) const;
  void WriteResponse(std::string_view status, const ErrorParts* error, JsonWriter* json) const;
  void WriteUsage(JsonWriter* json) const;
  std::string_view FinalStatus() const;

  const AnswerOptions options_;
  const std::string echo_;
  const int64_t created_unix_s_;
  std::string request_id_;
  std::string model_;
  float temperature_ = 1, top_p_ = 1;
  int32_t prompt_tokens_ = 0, cached_tokens_ = 0, tokens_ = 0;
  AnswerItems items_;
  std::optional<FinishEvent> finish_;
  int64_t sequence_number_ = 0;
};

}  // namespace fathom::router
