//! What an id leads to, and what is removed by it.

use dark_factory_executor::engine::{Engine, OwnedContainer};

use super::lab::Lab;

#[tokio::test]
async fn an_id_that_only_leads_to_a_container_removes_none() {
    let lab = Lab::new();
    lab.create(&lab.spec("print hello"), &lab.attempt()).await;
    let owned = lab.engine.list_owned(&lab.owner).await.unwrap();
    let short = OwnedContainer {
        id: owned[0].id[..12].to_owned(),
        ..owned[0].clone()
    };

    lab.engine.remove_owned(&lab.owner, &short).await.unwrap();

    assert_eq!(lab.engine.list_owned(&lab.owner).await.unwrap(), owned);
}
