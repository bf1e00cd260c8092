// router/frontend/http/conversation.h: collects the messages of a chat prompt from bodies whose
// form differs from that of chat completions, and reads what the bodies of /v1/responses and
// /v1/messages have in common. Pure. Errors are left in the FieldReader of the body.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "router/api/requests.h"
#include "router/frontend/http/field_reader.h"
#include "router/frontend/http/json_writer.h"
#include "router/frontend/http/openai_request.h"

namespace fathom::router {

class Conversation {
 public:
  // `path`: where the message stands in the body, for errors.
  void Add(ChatMessage message, std::string path);
  // The last message, if it is the assistant's and `fits` is true, else a new one of the assistant.
  ChatMessage* Assistant(const std::string& path, bool fits);
  // The last message, if it is the assistant's; null: it is not.
  ChatMessage* LastAssistant();

  std::vector<ChatMessage> TakeMessages() { return std::move(messages_); }
  std::vector<std::string> TakePaths() { return std::move(paths_); }

 private:
  std::vector<ChatMessage> messages_;
  std::vector<std::string> paths_;
};

// One text becomes the content of the message, several become its parts.
void SetContent(std::vector<std::string> texts, ChatMessage* message);

// The texts of a content: a string, or a list of parts whose type is one of `types` and whose text
// is in the field `text` (of a part of type "refusal": `refusal`). Fields in `accepted` decide
// nothing.
std::vector<std::string> ReadTexts(const JsonValue& value, const std::string& path,
                                   std::initializer_list<std::string_view> types,
                                   std::initializer_list<std::string_view> accepted,
                                   FieldReader* body);

// The fields that this server adds to both APIs: sampling, stops, ids, limits and template
// variables, as chat completions have them.
void ReadServerFields(FieldReader* body, OpenAiRequest* request, ChatPrompt* chat);

// The tools of a request in the form that chat templates read.
class ToolList {
 public:
  // `parameters` and `strict` may be null.
  void Add(const std::string& name, const std::string& description, const JsonValue* parameters,
           const JsonValue* strict);
  bool Has(std::string_view name) const;
  bool empty() const { return names_.empty(); }
  std::string TakeJson();  // Empty without tools.

 private:
  std::vector<std::string> names_;
  JsonWriter json_;
};

// The name of a tool that must be called is one of the tools'. Else the error names `field`.
void CheckChoice(const ChatPrompt& chat, const ToolList& tools, std::string_view field,
                 FieldReader* body);

}  // namespace fathom::router
