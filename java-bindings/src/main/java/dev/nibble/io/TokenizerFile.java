// SPDX-License-Identifier: Apache-2.0
package dev.nibble.io;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import dev.nibble.ModelFormatException;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Looks through a {@code tokenizer.json} before the tokenizers library gets it. The library
 * answers most of what is wrong with an error, but some of it ends in a panic, and a panic in a
 * library that Java has loaded ends the process. So only the kinds of components that tokenizers
 * of LLaMA-like models are made of get through, and of those not:
 *
 * <ul>
 *   <li>a {@code continuing_subword_prefix} of a BPE model (may be longer than a merged token);
 *   <li>a {@code TemplateProcessing} that uses a special token which it does not define;
 *   <li>a {@code Replace} of a regular expression or of nothing, and a {@code Prepend} of nothing
 *       (an empty match, an empty text);
 *   <li>a {@code Strip} decoder that cuts at the end (may be longer than the token).
 * </ul>
 *
 * <p>The file is read as a stream: vocabulary and merges are skipped.
 */
final class TokenizerFile {

  private static final Map<String, Set<String>> KINDS = Map.of(
      "normalizer", Set.of("Sequence", "Prepend", "Replace", "NFC", "NFD", "NFKC", "NFKD",
          "Lowercase", "Strip", "StripAccents"),
      "pre_tokenizer", Set.of("Sequence", "Split", "ByteLevel", "Metaspace", "Digits",
          "Punctuation", "Whitespace", "WhitespaceSplit", "BertPreTokenizer"),
      "post_processor", Set.of("Sequence", "TemplateProcessing", "ByteLevel", "BertProcessing",
          "RobertaProcessing"),
      "decoder", Set.of("Sequence", "Replace", "ByteFallback", "Fuse", "Strip", "ByteLevel",
          "Metaspace", "WordPiece", "BPEDecoder"));

  /** Where the kinds of Sequence keep their parts. */
  private static final List<String> PARTS =
      List.of("normalizers", "pretokenizers", "processors", "decoders");

  private static final JsonFactory FACTORY = JsonFactory.builder()
      .streamReadConstraints(StreamReadConstraints.builder()
          .maxNestingDepth(Json.MAX_DEPTH)
          .maxNumberLength(Json.MAX_DIGITS)
          .build())
      .disable(JsonFactory.Feature.INTERN_FIELD_NAMES)
      .disable(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES)
      .build();

  private final JsonParser parser;
  private final String file;

  private TokenizerFile(JsonParser parser, String file) {
    this.parser = parser;
    this.file = file;
  }

  /**
   * Checks a file.
   *
   * @throws ModelFormatException naming the field and what was expected
   */
  static void check(byte[] json, String file) {
    try (var parser = FACTORY.createParser(json)) {
      var checker = new TokenizerFile(parser, file);
      if (parser.nextToken() != JsonToken.START_OBJECT) {
        throw checker.problem("the top level is not an object");
      }
      checker.checkFields();
    } catch (JsonProcessingException e) {
      throw new ModelFormatException(file + ": not a valid tokenizer: not JSON: "
          + Problem.printable(e.getOriginalMessage()), e);
    } catch (IOException e) {
      throw Problem.reading(file, e);
    }
  }

  private ModelFormatException problem(String message) {
    return Problem.in(file, "not a valid tokenizer: " + message);
  }

  private void checkFields() throws IOException {
    while (parser.nextToken() == JsonToken.FIELD_NAME) {
      var field = parser.currentName();
      parser.nextToken();
      if (field.equals("model")) {
        checkModel();
      } else if (KINDS.containsKey(field)) {
        checkComponent(field, Json.readValue(parser, file));
      } else {
        parser.skipChildren();
      }
    }
  }

  private void checkModel() throws IOException {
    if (parser.currentToken() != JsonToken.START_OBJECT) {
      parser.skipChildren();
      return; // The library says that it is no model.
    }
    boolean hasPrefix = false;
    boolean pieces = false;
    while (parser.nextToken() == JsonToken.FIELD_NAME) {
      var field = parser.currentName();
      var token = parser.nextToken();
      if (field.equals("type")) {
        pieces = "WordPiece".equals(parser.getText());
      } else if (field.equals("continuing_subword_prefix")) {
        hasPrefix |= token == JsonToken.VALUE_STRING && !parser.getText().isEmpty();
      }
      parser.skipChildren();
    }
    if (hasPrefix && !pieces) {
      throw problem("model.continuing_subword_prefix is set, expected null");
    }
  }

  private void checkComponent(String field, Object value) {
    if (!(value instanceof Map<?, ?> component)) {
      if (value != null) {
        throw problem(field + " is " + Json.typeName(value) + ", expected an object or null");
      }
      return;
    }
    var kind = component.get("type");
    if (!(kind instanceof String name) || !KINDS.get(field).contains(name)) {
      throw problem(field + " is of type " + Problem.show(kind) + ", expected one of "
          + String.join(", ", KINDS.get(field).stream().sorted().toList()));
    }
    switch (name) {
      case "Sequence" -> checkSequence(field, component);
      case "TemplateProcessing" -> checkTemplate(component);
      case "Replace" -> {
        var literal = component.get("pattern") instanceof Map<?, ?> pattern
            ? pattern.get("String") : null;
        checkText(field + ": Replace.pattern.String", literal);
      }
      case "Prepend" -> checkText(field + ": Prepend.prepend", component.get("prepend"));
      case "Strip" -> {
        if (field.equals("decoder") && !Long.valueOf(0).equals(component.get("stop"))) {
          throw problem(field + ": Strip.stop is " + Problem.show(component.get("stop"))
              + ", expected 0");
        }
      }
      default -> { }
    }
  }

  private void checkSequence(String field, Map<?, ?> sequence) {
    for (var name : PARTS) {
      if (sequence.get(name) instanceof List<?> parts) {
        parts.forEach(part -> checkComponent(field, part));
      }
    }
  }

  private void checkText(String what, Object value) {
    if (!(value instanceof String text) || text.isEmpty()) {
      throw problem(what + " is " + Problem.show(value) + ", expected a text that is not empty");
    }
  }

  private void checkTemplate(Map<?, ?> template) {
    var defined = template.get("special_tokens") instanceof Map<?, ?> tokens
        ? tokens.keySet() : Set.of();
    for (var form : List.of("single", "pair")) {
      if (!(template.get(form) instanceof List<?> pieces)) {
        throw problem("post_processor: TemplateProcessing." + form + " is "
            + Json.typeName(template.get(form)) + ", expected an array");
      }
      for (var piece : pieces) {
        var special = piece instanceof Map<?, ?> map ? map.get("SpecialToken") : null;
        var id = special instanceof Map<?, ?> map ? map.get("id") : null;
        if (special != null && !defined.contains(id)) {
          throw problem("post_processor: TemplateProcessing." + form + " uses the special token "
              + Problem.show(id) + ", which special_tokens does not define");
        }
      }
    }
  }
}
