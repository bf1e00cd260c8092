// router/frontend/http/answer_writer.h: writes the events of the sessions of one request in the
// form of one HTTP API: a whole answer, or the events of a stream (Server-Sent Events).
// OpenAiAnswer, ResponsesAnswer and AnthropicAnswer implement it; HttpAnswer, its owner, calls it
// under its mutex. No IO. Where a method is not pure, it does what OpenAI's chat completions want.
#pragma once

#include <string>
#include <vector>

#include "cluster/request.h"
#include "common/status.h"
#include "http/message.h"
#include "router/frontend/http/http_error.h"
#include "router/sessions/client_events.h"

namespace fathom::router {

class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;

  // Empty before the first OnStarted, if the id was not known before.
  virtual const std::string& request_id() const = 0;

  // Each takes an event of the session of a prompt. In a stream it returns the bytes to send, which
  // may be none; else it keeps what the whole answer needs and returns nothing.
  virtual std::string OnStarted(int prompt, const StartedEvent& event,
                                std::vector<TokenId> prompt_ids) = 0;
  virtual std::string OnPromptLogprobs(int /*prompt*/, PromptLogprobs /*event*/) { return {}; }
  virtual std::string OnTokens(int prompt, TokensEvent event) = 0;
  virtual std::string OnFinish(int prompt, FinishEvent event) = 0;

  // Bytes that a client ignores, which tell it that the stream is alive. In OpenAI's form it is a
  // comment without an empty line after it: the empty line would be an event for clients that
  // remember the id of the last one, OpenAI's among them.
  virtual std::string Heartbeat() const { return ": heartbeat\n"; }

  // Every choice has its end.
  virtual bool complete() const = 0;
  // The last events of a stream that succeeded. REQUIRES: called once.
  virtual std::string StreamEnd() = 0;
  // The last events of a stream that failed. REQUIRES: !status.ok(); called once.
  virtual std::string StreamError(const absl::Status& status, const FieldNames& names) {
    return "data: " + ErrorObject(status, names) + "\n\n";
  }
  // The whole answer. REQUIRES: complete().
  virtual std::string Whole() const = 0;
};

}  // namespace fathom::router
