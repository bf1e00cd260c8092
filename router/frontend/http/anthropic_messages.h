// router/frontend/http/anthropic_messages.h: reads `system`, `messages`, `tools` and `tool_choice`
// of Anthropic's API into a chat prompt. Pure. Errors are left in the FieldReader of the body.
#pragma once

#include <string>
#include <vector>

#include "router/api/requests.h"
#include "router/frontend/http/field_reader.h"

namespace fathom::router {

// A tool_result becomes a message of the role tool; the texts of the same message become one of the
// user. An assistant's message at the end is continued. `*paths`: where each message of the prompt
// stands in the body.
void ReadAnthropicChat(FieldReader* body, ChatPrompt* chat, std::vector<std::string>* paths);

}  // namespace fathom::router
