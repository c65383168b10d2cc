// SPDX-License-Identifier: Apache-2.0
//
// A recursive-descent parser of the PTX that nvcc writes, inline assembly included.

#include <cctype>
#include <cstdlib>
#include <cstring>

#include "kernels-cuda/emulator/ptx_module.h"

namespace nibble::cuda::emulator {
namespace {

struct Token {
  enum Kind { kEnd, kWord, kNumber, kString, kPunctuation } kind = kEnd;
  std::string text;
  int line = 0;
};

bool WordStart(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '%' || c == '$';
}
bool WordPart(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$';
}

// Words keep their dots and "::" (ld.global.v4.u32, kind::f8f6f4, %tid.x); directives start with
// a dot. Comments vanish.
std::vector<Token> Tokenize(const std::string& text) {
  std::vector<Token> tokens;
  int line = 1;
  size_t i = 0;
  const size_t n = text.size();
  while (i < n) {
    const char c = text[i];
    if (c == '\n') {
      ++line;
      ++i;
    } else if (std::isspace(static_cast<unsigned char>(c))) {
      ++i;
    } else if (c == '/' && i + 1 < n && text[i + 1] == '/') {
      while (i < n && text[i] != '\n') ++i;
    } else if (c == '/' && i + 1 < n && text[i + 1] == '*') {
      for (i += 2; i + 1 < n && !(text[i] == '*' && text[i + 1] == '/'); ++i) {
        if (text[i] == '\n') ++line;
      }
      i += 2;
    } else if (c == '"') {
      size_t end = i + 1;
      while (end < n && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
      tokens.push_back({Token::kString, text.substr(i + 1, end - i - 1), line});
      i = end + 1;
    } else if (std::isdigit(static_cast<unsigned char>(c))) {
      size_t end = i;
      // 1.5e-3 holds a dot and a sign; 0f3F800000 and 0x1F do not.
      const bool prefixed =
          c == '0' && i + 1 < n && std::isalpha(static_cast<unsigned char>(text[i + 1]));
      while (end < n && (WordPart(text[end]) || (!prefixed && text[end] == '.') ||
                         (!prefixed && (text[end] == '-' || text[end] == '+') &&
                          (text[end - 1] == 'e' || text[end - 1] == 'E')))) {
        ++end;
      }
      tokens.push_back({Token::kNumber, text.substr(i, end - i), line});
      i = end;
    } else if (WordStart(c) || (c == '.' && i + 1 < n && WordStart(text[i + 1]))) {
      size_t end = i + 1;
      while (end < n) {
        if (WordPart(text[end])) {
          ++end;
        } else if (text[end] == '.' && end + 1 < n && WordPart(text[end + 1])) {
          end += 2;
        } else if (text[end] == ':' && end + 2 < n && text[end + 1] == ':' &&
                   WordPart(text[end + 2])) {
          end += 3;
        } else {
          break;
        }
      }
      tokens.push_back({Token::kWord, text.substr(i, end - i), line});
      i = end;
    } else {
      tokens.push_back({Token::kPunctuation, std::string(1, c), line});
      ++i;
    }
  }
  tokens.push_back({Token::kEnd, "", line});
  return tokens;
}

std::vector<std::string> SplitDots(const std::string& word) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= word.size()) {
    const size_t dot = word.find('.', begin);
    const size_t end = dot == std::string::npos ? word.size() : dot;
    if (end > begin) parts.push_back(word.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

int TypeBits(const std::string& type, int line) {
  if (type == "pred") return 1;
  if (type == "f16x2" || type == "bf16x2") return 32;
  if (type == "bf16") return 16;
  const size_t digit = type.find_first_of("0123456789");
  if (digit == 1 && std::strchr("bsuf", type[0]) != nullptr) {
    const int bits = std::atoi(type.c_str() + 1);
    if (bits == 8 || bits == 16 || bits == 32 || bits == 64 || bits == 128) return bits;
  }
  throw PtxError(line, "unknown type ." + type);
}

class Parser {
 public:
  explicit Parser(const std::string& text) : tokens_(Tokenize(text)) {}

  Module Parse() {
    while (Peek().kind != Token::kEnd) TopLevel();
    return std::move(module_);
  }

  Statement ParseOneStatement(int line) {
    Function function;
    function_ = &function;
    ParseStatement();
    if (Peek().kind != Token::kEnd) throw PtxError(line, "more than one statement on a line");
    Statement statement = std::move(function.statements.front());
    statement.line = line;
    return statement;
  }

 private:
  const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  Token Next() {
    Token token = Peek();
    if (at_ < tokens_.size() - 1) ++at_;
    return token;
  }
  bool Accept(const char* text) {
    if (Peek().kind == Token::kString || Peek().text != text) return false;
    Next();
    return true;
  }
  void Expect(const char* text) {
    if (!Accept(text)) {
      throw PtxError(Peek().line,
                     std::string("expected '") + text + "' but found '" + Peek().text + "'");
    }
  }
  int64_t Integer() {
    const bool minus = Accept("-");
    const Token token = Next();
    if (token.kind != Token::kNumber)
      throw PtxError(token.line, "expected a number, found '" + token.text + "'");
    const uint64_t value = ParseInteger(token);
    return minus ? -static_cast<int64_t>(value) : static_cast<int64_t>(value);
  }
  static uint64_t ParseInteger(const Token& token) {
    std::string text = token.text;
    if (!text.empty() && text.back() == 'U') text.pop_back();
    char* end = nullptr;
    uint64_t value = 0;
    if (text.size() > 2 && text[0] == '0' && (text[1] == 'b' || text[1] == 'B')) {
      value = std::strtoull(text.c_str() + 2, &end, 2);
    } else {
      value = std::strtoull(text.c_str(), &end, 0);
    }
    if (*end != 0) throw PtxError(token.line, "'" + token.text + "' is no integer");
    return value;
  }

  void SkipToEndOfLine(int line) {
    while (Peek().kind != Token::kEnd && Peek().line == line) Next();
  }

  void TopLevel() {
    const Token token = Peek();
    if (Accept(".version")) {
      const std::vector<std::string> parts = SplitDots(Next().text);
      module_.version = 10 * std::atoi(parts.at(0).c_str()) +
                        (parts.size() > 1 ? std::atoi(parts[1].c_str()) : 0);
    } else if (Accept(".target")) {
      module_.target = Next().text;
      while (Accept(",")) Next();
    } else if (Accept(".address_size")) {
      if (Integer() != 64) throw PtxError(token.line, "only 64-bit addresses are run");
    } else if (token.text == ".file" || token.text == ".loc") {
      SkipToEndOfLine(token.line);
    } else if (token.text == ".section") {
      while (Peek().kind != Token::kEnd && Peek().text != "{") Next();
      SkipBraces();
    } else {
      Declaration();
    }
  }

  void SkipBraces() {
    Expect("{");
    for (int depth = 1; depth > 0;) {
      const Token token = Next();
      if (token.kind == Token::kEnd) throw PtxError(token.line, "unclosed brace");
      if (token.text == "{") ++depth;
      if (token.text == "}") --depth;
    }
  }

  void Declaration() {
    bool is_extern = false;
    for (;;) {
      const Token token = Peek();
      if (Accept(".visible") || Accept(".weak") || Accept(".common")) continue;
      if (Accept(".extern")) {
        is_extern = true;
        continue;
      }
      if (Accept(".entry")) return ParseFunction(true, token.line);
      if (Accept(".func")) return ParseFunction(false, token.line);
      if (token.text == ".global" || token.text == ".const" || token.text == ".shared") {
        return ParseVariables(&module_.variables, is_extern);
      }
      throw PtxError(token.line, "'" + token.text + "' is not known at module level");
    }
  }

  static StateSpace SpaceOf(const std::string& text) {
    if (text == ".global") return StateSpace::kGlobal;
    if (text == ".const") return StateSpace::kConst;
    if (text == ".shared") return StateSpace::kShared;
    if (text == ".local") return StateSpace::kLocal;
    return StateSpace::kParam;
  }

  // .space [.align n] [.ptr...] .type name [dims] [= init]; type words and space may have been
  // joined with dots by the tokenizer.
  Variable ParseVariable(bool allow_init) {
    Variable variable;
    const Token first = Next();
    variable.line = first.line;
    std::vector<std::string> parts = SplitDots(first.text);
    variable.space = SpaceOf("." + parts[0]);
    std::string type;
    size_t part = 1;
    for (;;) {
      if (part >= parts.size()) {
        if (Peek().kind != Token::kWord || Peek().text[0] != '.') break;
        parts = SplitDots(Next().text);
        part = 0;
        continue;
      }
      const std::string word = parts[part++];
      if (word == "align") {
        variable.alignment = Integer();
      } else if (word == "ptr" || word == "global" || word == "shared" || word == "const" ||
                 word == "local") {
        // an attribute of a pointer parameter
        if (word == "ptr") {
          // its .align describes what it points to
          const int64_t own = variable.alignment;
          while (Peek().kind == Token::kWord && Peek().text[0] == '.') {
            if (Accept(".align")) {
              Integer();
            } else {
              Next();
            }
          }
          variable.alignment = own;
        }
      } else {
        type = word;
      }
    }
    if (type.empty()) throw PtxError(variable.line, "a variable without a type");
    const int element = TypeBits(type, variable.line) / 8;
    const Token name = Next();
    if (name.kind != Token::kWord)
      throw PtxError(name.line, "expected a name, found '" + name.text + "'");
    variable.name = name.text;
    variable.bytes = element;
    bool unsized = false;
    while (Accept("[")) {
      if (Accept("]")) {
        unsized = true;
        continue;
      }
      variable.bytes *= Integer();
      Expect("]");
    }
    if (variable.alignment < element) variable.alignment = element;
    if (allow_init && Accept("=")) {
      ParseInitializer(element, type, &variable);
      if (unsized) variable.bytes = static_cast<int64_t>(variable.data.size());
    } else if (unsized) {
      variable.bytes = 0;
    }
    return variable;
  }

  void ParseInitializer(int element, const std::string& type, Variable* variable) {
    if (Accept("{")) {
      while (!Accept("}")) {
        ParseInitializer(element, type, variable);
        Accept(",");
      }
      return;
    }
    const size_t at = variable->data.size();
    variable->data.resize(at + element, 0);
    uint64_t bits = 0;
    if (Peek().kind == Token::kWord) {
      std::string name = Next().text;
      if (name == "generic") {
        Expect("(");
        name = Next().text;
        Expect(")");
      }
      if (element != 8) throw PtxError(variable->line, "a symbol's address needs 8 bytes");
      variable->addresses.emplace_back(static_cast<int64_t>(at), name);
    } else {
      const Operand value = ParseNumber();
      bits = value.integer;
      if (value.kind == Operand::Kind::kFloat && type == "f32") {
        const float narrow = static_cast<float>(value.number);
        uint32_t word;
        std::memcpy(&word, &narrow, 4);
        bits = word;
      }
    }
    std::memcpy(variable->data.data() + at, &bits, element);
  }

  void ParseVariables(std::vector<Variable>* out, bool is_extern) {
    Variable variable = ParseVariable(true);
    variable.is_extern = is_extern;
    out->push_back(variable);
    while (Accept(",")) {
      Variable next = variable;
      next.name = Next().text;
      next.data.clear();
      out->push_back(next);
    }
    Expect(";");
  }

  std::vector<Variable> ParseParameters() {
    std::vector<Variable> list;
    if (!Accept("(")) return list;
    while (!Accept(")")) {
      if (Peek().text.rfind(".param", 0) != 0) {
        throw PtxError(Peek().line, "function parameters other than .param are not run");
      }
      list.push_back(ParseVariable(false));
      Accept(",");
    }
    return list;
  }

  void ParseFunction(bool entry, int line) {
    Function function;
    function.is_entry = entry;
    function.line = line;
    if (!entry) function.results = ParseParameters();
    function.name = Next().text;
    function.parameters = ParseParameters();
    for (;;) {
      const Token token = Peek();
      if (token.text == "{") break;
      if (Accept(";")) {  // a declaration only
        module_.functions.push_back(std::move(function));
        return;
      }
      Next();
      if (token.text == ".maxntid" || token.text == ".reqntid") {
        int* values = token.text == ".maxntid" ? function.max_threads : function.required_threads;
        values[0] = values[1] = values[2] = 1;
        int index = 0;
        do {
          values[std::min(index++, 2)] = static_cast<int>(Integer());
        } while (Accept(","));
      } else if (token.text == ".minnctapersm" || token.text == ".maxnreg") {
        Integer();
      } else if (token.text == ".pragma") {
        Next();
        Accept(";");
      } else if (token.text == ".noreturn") {
      } else {
        throw PtxError(token.line, "'" + token.text + "' is not known on a function");
      }
    }
    function.has_body = true;
    function_ = &function;
    scopes_.clear();
    scope_count_ = 0;
    Body();
    function_ = nullptr;
    module_.functions.push_back(std::move(function));
  }

  // What a name written here stands for: the innermost declaration's unique name.
  std::string Resolve(const std::string& name) const {
    for (size_t i = scopes_.size(); i-- > 0;) {
      const auto found = scopes_[i].find(name);
      if (found != scopes_[i].end()) return found->second;
    }
    return name;
  }
  std::string Declare(const std::string& name) {
    const bool inner = scopes_.size() > 1;
    const std::string unique = inner ? name + "@" + std::to_string(scope_count_) : name;
    scopes_.back()[name] = unique;
    return unique;
  }

  void Body() {
    Expect("{");
    scopes_.emplace_back();
    ++scope_count_;
    FindLabels();
    while (!Accept("}")) {
      if (Peek().kind == Token::kEnd) throw PtxError(Peek().line, "unclosed brace");
      if (Peek().text == "{") {
        Body();
      } else {
        BodyItem();
      }
    }
    scopes_.pop_back();
  }

  // A label is used before it is declared, so the scope's own are found ahead.
  void FindLabels() {
    int depth = 1;
    for (size_t i = at_; depth > 0 && tokens_[i].kind != Token::kEnd; ++i) {
      if (tokens_[i].text == "{" && tokens_[i].kind == Token::kPunctuation) ++depth;
      if (tokens_[i].text == "}" && tokens_[i].kind == Token::kPunctuation) --depth;
      if (depth == 1 && tokens_[i].kind == Token::kWord && tokens_[i + 1].text == ":" &&
          (tokens_[i - 1].text == ";" || tokens_[i - 1].text == "{" || tokens_[i - 1].text == "}" ||
           tokens_[i - 1].text == ":" || tokens_[i - 1].kind == Token::kString ||
           tokens_[i].line != tokens_[i - 1].line)) {
        Declare(tokens_[i].text);
      }
    }
  }

  void BodyItem() {
    const Token token = Peek();
    if (token.text == ".reg" || token.text.rfind(".reg.", 0) == 0) {
      ParseRegisters();
    } else if (token.text == ".loc" || token.text == ".file") {
      SkipToEndOfLine(token.line);
    } else if (Accept(".pragma")) {
      Next();
      Expect(";");
    } else if (token.text == ".local" || token.text == ".shared" || token.text == ".param" ||
               token.text.rfind(".local.", 0) == 0 || token.text.rfind(".shared.", 0) == 0 ||
               token.text.rfind(".param.", 0) == 0) {
      std::vector<Variable> list;
      ParseVariables(&list, false);
      for (Variable& variable : list) {
        variable.name = Declare(variable.name);
        function_->variables.push_back(std::move(variable));
      }
    } else if (token.kind == Token::kWord && Peek(1).text == ":") {
      Next();
      Next();
      const std::string name = Resolve(token.text);
      if (Peek().text == ".branchtargets") {
        Next();
        std::vector<std::string>& list = function_->label_lists[name];
        do {
          list.push_back(Resolve(Next().text));
        } while (Accept(","));
        Expect(";");
      } else if (Peek().text == ".callprototype") {
        while (!Accept(";")) Next();
      } else {
        function_->labels[name] = function_->statements.size();
      }
    } else if (token.text == ";") {
      Next();
    } else {
      ParseStatement();
    }
  }

  void ParseRegisters() {
    const Token first = Next();
    std::vector<std::string> parts = SplitDots(first.text);
    if (parts.size() < 2) parts = SplitDots(".reg" + Next().text);
    Register reg;
    reg.bits = TypeBits(parts.back(), first.line);
    do {
      const std::string name = Next().text;
      if (Accept("<")) {
        const int64_t count = Integer();
        Expect(">");
        for (int64_t i = 0; i < count; ++i) {
          function_->registers[Declare(name + std::to_string(i))] = reg;
        }
      } else {
        function_->registers[Declare(name)] = reg;
      }
    } while (Accept(","));
    Expect(";");
  }

  void ParseStatement() {
    Statement statement;
    statement.line = Peek().line;
    if (Accept("@")) {
      statement.guard_negated = Accept("!");
      statement.guard = Resolve(Next().text);
    }
    const Token opcode = Next();
    if (opcode.kind != Token::kWord)
      throw PtxError(opcode.line, "expected an instruction, found '" + opcode.text + "'");
    statement.line = opcode.line;
    statement.opcode = SplitDots(opcode.text);
    while (!Accept(";")) {
      if (Peek().kind == Token::kEnd || Peek().text == "}") {
        throw PtxError(opcode.line, "'" + opcode.text + "' has no ';'");
      }
      statement.operands.push_back(ParseOperand());
      Accept(",");
    }
    function_->statements.push_back(std::move(statement));
  }

  Operand ParseNumber() {
    Operand operand;
    const bool minus = Accept("-");
    const Token token = Next();
    if (token.kind != Token::kNumber)
      throw PtxError(token.line, "'" + token.text + "' is no operand");
    const std::string& text = token.text;
    if (text.size() > 2 && text[0] == '0' && std::strchr("fFdD", text[1]) != nullptr) {
      operand.kind = Operand::Kind::kFloat;
      operand.integer = std::strtoull(text.c_str() + 2, nullptr, 16);
      operand.single = text[1] == 'f' || text[1] == 'F';
      if (operand.single) {
        const uint32_t bits = static_cast<uint32_t>(operand.integer);
        float value;
        std::memcpy(&value, &bits, 4);
        operand.number = value;
      } else {
        std::memcpy(&operand.number, &operand.integer, 8);
      }
      if (minus) {
        operand.number = -operand.number;
        operand.integer ^= operand.single ? 0x80000000u : uint64_t{1} << 63;
      }
    } else if (text.find_first_of(".") != std::string::npos && text[1] != 'x') {
      operand.kind = Operand::Kind::kFloat;
      operand.number = std::strtod(text.c_str(), nullptr) * (minus ? -1 : 1);
      std::memcpy(&operand.integer, &operand.number, 8);
    } else {
      operand.kind = Operand::Kind::kInteger;
      operand.integer = ParseInteger(token);
      if (minus) operand.integer = 0 - operand.integer;
      operand.number = static_cast<double>(static_cast<int64_t>(operand.integer));
    }
    return operand;
  }

  Operand ParseOperand() {
    Operand operand;
    if (Accept("[")) {
      operand.kind = Operand::Kind::kAddress;
      if (Peek().kind == Token::kNumber || Peek().text == "-") {
        operand.integer = static_cast<uint64_t>(Integer());
      } else {
        operand.name = Resolve(Next().text);
        if (Accept("+")) {
          operand.integer = static_cast<uint64_t>(Integer());
        } else if (Peek().text == "-") {
          operand.integer = static_cast<uint64_t>(Integer());
        }
      }
      if (Peek().text == ",") throw PtxError(Peek().line, "tensor addresses (TMA) are not run");
      Expect("]");
      return operand;
    }
    const bool brace = Peek().text == "{";
    if (brace || Peek().text == "(") {
      Next();
      operand.kind = Operand::Kind::kVector;
      while (!Accept(brace ? "}" : ")")) {
        operand.parts.push_back(ParseOperand());
        Accept(",");
      }
      return operand;
    }
    if (Accept("!")) operand.negated = true;
    if (Peek().kind == Token::kWord) {
      const int line = Peek().line;
      operand.name = Resolve(Next().text);
      if (Accept("|")) operand.second = Resolve(Next().text);
      // name+offset, as in "mov.u64 %rd, table+16"
      if (Peek().text == "+" && Peek(1).kind == Token::kNumber) {
        Next();
        operand.integer = static_cast<uint64_t>(Integer());
      }
      if (operand.name == "WARP_SZ") throw PtxError(line, "WARP_SZ is not run");
      return operand;
    }
    return ParseNumber();
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  Module module_;
  Function* function_ = nullptr;
  std::vector<std::unordered_map<std::string, std::string>> scopes_;
  int scope_count_ = 0;
};

}  // namespace

std::string Statement::Text() const {
  std::string text;
  for (const std::string& part : opcode) text += (text.empty() ? "" : ".") + part;
  return text;
}

Module ParsePtx(const std::string& text) { return Parser(text).Parse(); }

Statement ParseStatement(const std::string& text, int line) {
  return Parser(text).ParseOneStatement(line);
}

}  // namespace nibble::cuda::emulator
