#include "router/frontend/http/answer_form.h"

#include <utility>

namespace fathom::router {

AnswerForm OpenAiForm(const OpenAiRequest& request) {
  return {.names = {.max_tokens = request.answer.max_tokens_name,
                    .logprobs = request.answer.chat ? "top_logprobs" : "logprobs",
                    .prompt = request.answer.chat ? "messages" : "prompt"},
          .writer = [](AnswerParts parts) -> std::unique_ptr<AnswerWriter> {
            return std::make_unique<OpenAiAnswer>(std::move(parts));
          },
          .can_resume = true};
}

}  // namespace fathom::router
