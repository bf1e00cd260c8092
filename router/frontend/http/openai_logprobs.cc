// The log-probabilities of openai_answer.h.
#include <algorithm>

#include "common/utf8.h"
#include "router/frontend/http/openai_answer.h"

namespace fathom::router {
namespace {

void WriteBytes(const std::string& bytes, JsonWriter* json) {
  json->BeginArray();
  for (const char c : bytes) json->Int(static_cast<unsigned char>(c));
  json->EndArray();
}

void WriteToken(TokenId id, float logprob, const TokenTexts& texts, JsonWriter* json) {
  json->Key("token").String(texts.Text(id)).Key("logprob").Real(logprob).Key("bytes");
  WriteBytes(texts.Bytes(id), json);
}

// The alternatives, and the token itself if it is none of them.
std::vector<std::pair<TokenId, float>> WithOwn(const TokenLogprob& token) {
  std::vector<std::pair<TokenId, float>> all;
  for (size_t i = 0; i < token.top_ids.size(); ++i) {
    all.emplace_back(token.top_ids[i], token.top_logprobs[i]);
  }
  const auto own = [&](const auto& one) { return one.first == token.id; };
  if (std::ranges::none_of(all, own)) all.emplace_back(token.id, token.logprob);
  return all;
}

}  // namespace

std::string TokenTexts::Bytes(TokenId id) const {
  if (tokenizer_ == nullptr || id < 0 || id >= tokenizer_->vocab_size()) return {};
  return std::string(tokenizer_->TokenBytes(id));
}

std::string TokenTexts::Text(TokenId id) const {
  if (as_ids_ || tokenizer_ == nullptr) return fmt::format("token_id:{}", id);
  return ToUtf8(Bytes(id));
}

std::string TokenTexts::Key(TokenId id) const {
  const std::string bytes = Bytes(id);
  if (as_ids_ || FirstInvalidUtf8(bytes) == std::string::npos) return Text(id);
  std::string key = "bytes:";
  for (const char c : bytes) key += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return key;
}

int64_t TextOffsets::Add(TokenId id) {
  const int64_t offset = characters_;
  if (!detokenizer_) return offset;
  std::string text;
  detokenizer_->Append(id, &text);
  const auto begins = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
  characters_ += std::ranges::count_if(text, begins);
  return offset;
}

void WriteChatLogprobs(const std::vector<TokenLogprob>& logprobs, const TokenTexts& texts,
                       JsonWriter* json) {
  json->BeginObject().Key("content").BeginArray();
  for (const TokenLogprob& token : logprobs) {
    json->BeginObject();
    WriteToken(token.id, token.logprob, texts, json);
    json->Key("top_logprobs").BeginArray();
    for (size_t i = 0; i < token.top_ids.size(); ++i) {
      json->BeginObject();
      WriteToken(token.top_ids[i], token.top_logprobs[i], texts, json);
      json->EndObject();
    }
    json->EndArray().EndObject();
  }
  json->EndArray().Key("refusal").Null().EndObject();
}

void WriteCompletionLogprobs(const std::optional<TokenId>& absent,
                             const std::vector<TokenLogprob>& logprobs, const TokenTexts& texts,
                             TextOffsets* offsets, JsonWriter* json) {
  json->BeginObject().Key("text_offset").BeginArray();
  if (absent) json->Int(offsets->Add(*absent));
  for (const TokenLogprob& token : logprobs) json->Int(offsets->Add(token.id));
  json->EndArray().Key("token_logprobs").BeginArray();
  if (absent) json->Null();
  for (const TokenLogprob& token : logprobs) json->Real(token.logprob);
  json->EndArray().Key("tokens").BeginArray();
  if (absent) json->String(texts.Text(*absent));
  for (const TokenLogprob& token : logprobs) json->String(texts.Text(token.id));
  json->EndArray().Key("top_logprobs").BeginArray();
  if (absent) json->Null();
  for (const TokenLogprob& token : logprobs) {
    json->BeginObject();
    std::vector<std::string>
        keys;  // Two tokens may have the same bytes; the more likely one stays.
    for (const auto& [id, logprob] : WithOwn(token)) {
      const std::string key = texts.Key(id);
      if (std::ranges::find(keys, key) != keys.end()) continue;
      json->Key(key).Real(logprob);
      keys.push_back(key);
    }
    json->EndObject();
  }
  json->EndArray().EndObject();
}

void WritePromptLogprobs(const std::vector<TokenLogprob>& logprobs, const TokenTexts& texts,
                         JsonWriter* json) {
  json->BeginArray().Null();
  for (const TokenLogprob& token : logprobs) {
    json->BeginObject();
    int rank = 0;
    for (const auto& [id, logprob] : WithOwn(token)) {
      json->Key(fmt::format("{}", id)).BeginObject().Key("logprob").Real(logprob);
      // The rank of a token beyond the alternatives is not known.
      if (++rank <= static_cast<int>(token.top_ids.size())) json->Key("rank").Int(rank);
      json->Key("decoded_token").String(texts.Text(id)).EndObject();
    }
    json->EndObject();
  }
  json->EndArray();
}

}  // namespace fathom::router
