"""Words that everybody uses: alone they name little, and recognition likes to hear them."""

from __future__ import annotations

COMMON_WORDS = frozenset(
    """
    a about after again air all allow alone along also always am an and andy another any are area
    arm around as ask at away baby back bad bag ball band bank bar base bath bay be beach bean
    bear bed bee been beer before bell belly best better big bill bird bit black block blue board
    boat bob body bone book boot born both bottle bowl box boy bread break bring brown bus busy
    but buy by cab cake call came camp can cap car card care carry case cash cat chain chair
    change cheap check chicken child chin china choose church city class clean clear clock close
    club coat code coffee cold color come cook cool copper corn corner cost could count country
    course court cover cow cross crown cry cup curry cut dad dam dark date day dead deal dear
    deep den did dinner do doctor dog done door double down draw dream dress drink drive drop dry
    duck each ear early east easy eat edge egg eight else end even ever every eye face fall family
    far farm fast fat father feel feet few field fill find fine fire first fish five floor fly
    food foot for four free fresh friend from front full fun game garden gate gave get girl give
    glass go gold golden gone good got grand gray great green ground group grow guess guest hair
    half hall ham hand happy hard has hat have he head hear heart heavy hello help hen her here
    high hill him his hit hold home hope horse hot hour house how hungry i ice if in inn is it
    jay job joe john joy june just keep kept key kid kill kind king kitchen knee knife know lake
    lamb lamp land lane large last late law lawn lay lead leaf learn left leg lemon let life
    light like line lip list little live lodge long look lot love low lunch mail main make mall
    man many map mark market may me meal mean meat meet men menu met mid mile milk mill mind mine
    miss mom money month moon more morning most mother mouse move much my name near neck need
    nest net never new next nice night nine no noise noodle north nose not now of off offer oil
    old on once one only open or order other our out over own page pain pan park part pass path
    pay pea pen people pet pick pie piece pin pizza place plan play please pool pop pork port pot
    pound pull put queen quick quiet rain ran rate reach read ready real red rent rest rice rich
    ride right ring river road rock room rose round row rule run safe said sail salad sale salt
    same sand sat say sea seat see sell send sent serve set seven shall share she ship shop short
    show shut side sign sing sir sister sit six skin sky sleep slow small smoke snow so soft some
    son song soon sort soup south space spice stand star start stay steak stone stop store street
    strong such sun sure sweet table take talk tall tan taste tax taxi tea team tell ten than
    thank that the their them then there these they thin thing think third this three tie time
    tip to today told too took top town train tree try turn two uncle under until up us use van
    very view villa visit wait walk wall want war warm was wash water way we week well went were
    west wet what wheel when where which while white who why wife will win wind wine wing wish
    with woman wood wool word work world worth would write yard year yellow yes yet you young your
    """.split()  # noqa: SIM905
)
