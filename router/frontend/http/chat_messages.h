// router/frontend/http/chat_messages.h: reads the fields of a body that make a chat prompt:
// messages, tools and the options of the template. Pure.
#pragma once

#include "router/api/requests.h"
#include "router/frontend/http/field_reader.h"

namespace fathom::router {

// Errors are left in `body`.
ChatPrompt ReadChatPrompt(FieldReader* body);

// The field chat_template_kwargs. `enable_thinking` is a variable of its own; all others are passed
// on as they are. Errors are left in `body`.
void ReadTemplateVariables(FieldReader* body, ChatPrompt* chat);

}  // namespace fathom::router
